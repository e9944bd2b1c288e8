"""Texts on which the compiler looks at a model's activations: plain English of many kinds, written for this purpose.

They stand for what a user's tasks will read. What an observation decides is how weights are rounded, never what the
model computes in exact arithmetic, so texts of another kind or language lose a little accuracy at most.
"""

from __future__ import annotations

__all__ = ["SAMPLE_PAIRS", "SAMPLE_TEXTS"]

SAMPLE_TEXTS = (
    "The ferry to the island was cancelled this morning because of strong winds.",
    "I have read this novel three times, and it gets better each time.",
    "A dull, overlong thriller whose only surprise is how little happens in it.",
    "What time does the last train to the airport leave on Sundays?",
    "Shares in the shipping company fell by four percent after it warned of lower profits.",
    "She told him that the letter had been lying on the kitchen table since Tuesday.",
    "Who wrote the report that the committee rejected?",
    "The more you practise, the easier it becomes.",
    "Water boils at a lower temperature on a mountain than at the seaside.",
    "Please restart the device, hold the button for ten seconds, and try again.",
    "The actors do what they can, but the script gives them nothing to work with.",
    "Two men are repairing a bicycle in front of a small shop.",
    "A dog runs across a frozen field with a stick in its mouth.",
    "The museum was founded in 1887 and moved to its present building in 1931.",
    "Researchers at the institute have found a new way to measure the age of ice.",
    "He denied that he had ever met the minister, let alone borrowed money from her.",
    "It rained.",
    "No refunds, no exchanges, no exceptions!",
    "The children were asked to draw the house in which they would like to live.",
    "Although the bridge looks old, it was built only twelve years ago.",
    "Heat the oil, add the onions and fry them gently until they are soft.",
    "My order arrived two weeks late, and one of the plates was broken.",
    "The battery lasts a whole day, the screen is bright, and the price is fair.",
    "Nobody in the village could remember a winter as cold as this one.",
    "The court ruled on Friday that the contract was void, and ordered the firm to pay 2.4 million euros.",
    "Is there a pharmacy near the station that is open after eight?",
    "Her second album is warmer, slower and far more personal than the first.",
    "The cat which the neighbours feed sleeps on our roof.",
    "Them have going to the market yesterday with we.",
    "The police arrested a man of 34 on suspicion of setting fire to two cars.",
    "An elderly woman is slicing tomatoes on a wooden board.",
    "A woman cuts vegetables in a kitchen.",
    "The plane landed safely after one of its engines had failed.",
    "One engine failed, but the aircraft landed without injuries to anybody on board.",
    "Volcanoes form where one plate of the crust slides under another.",
    "The parliament of the region has 120 seats, of which the greens hold 31.",
    "Light travels about 300,000 kilometres in one second.",
    "Her grandfather, a carpenter, had built the table without a single nail.",
    "I would not recommend this hotel to anyone who wants to sleep at night.",
    "The soup was excellent; the service, on the other hand, was not.",
    "Rivers carry sand and mud to the sea, where they settle and slowly become stone.",
    "The team won its first match in seven weeks, thanks to a goal in the last minute.",
    "Which of these two phones has the better camera?",
    "The company, which employs 900 people in Turin and Lyon, makes brakes for trains.",
    "Copy the file to the server, then run the script as an administrator.",
    "There is hardly any film this year that I enjoyed as much as this modest comedy.",
    "The king gave the city its rights in 1284, and took them back nine years later.",
    "He said he'd call, but he didn't, so we left without him.",
    "On the whole it is a charming, clever and beautifully drawn picture book.",
    "The vaccine was tested on 3,000 volunteers between the ages of 18 and 65.",
    "To whom did you say the parcel should be sent?",
    "The house that Jack sold it was green.",
    "Prices for wheat rose for the third month in a row, while those for rice stayed the same.",
    "The old theatre will be torn down next year to make room for offices.",
    "A man in a red jacket is playing the guitar on stage.",
    "Nothing about this sequel justifies its existence, or its length.",
    "The moon has no atmosphere to speak of, so its sky is black even by day.",
    "Could you turn the heating down a little, please?",
    "The treaty was signed by eleven countries and came into force in the spring.",
    "Several witnesses said that the driver had been looking at his phone.",
    "The library lends books, films, tools and, since last year, musical instruments.",
    "Her answer was short, polite and completely beside the point.",
    "Bees find their way by the position of the sun, even when clouds hide it.",
    "The board of directors is expected to meet again on Thursday to discuss the offer.",
)

#: Texts as tasks of pairs read them: beside the one that stands four further on.
SAMPLE_PAIRS = tuple(zip(SAMPLE_TEXTS[0:-4:2], SAMPLE_TEXTS[4::2], strict=True))

"""Tasks that other tools trained, and tasks for other tools: transformers checkpoints and PEFT adapters.

`import_task` makes a delta of a checkpoint in which only bias terms and the head differ from the base model,
`merge_task` makes a checkpoint of a delta. Both run the two models before they answer: the logits must be the same.
"""

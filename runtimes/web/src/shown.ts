// Names, paths and other text from files and callers, as a message may have them: on one line, escaped, and not too long.

const LONGEST_NAME = 100;
const NOT_PRINTABLE = /[^\P{C}\u00ad]|[\u0085\u2028\u2029\u00a0]|(?! )\p{Zs}/u;

/** Returns text as `text`, with control characters and whatever else cannot be seen escaped, and its middle left out. */
export function shown(text: string, longest = LONGEST_NAME): string {
  const few = text.length <= longest ? text : text.slice(0, longest) + text.slice(-longest);
  let kept = "";
  for (const character of few) kept += NOT_PRINTABLE.test(character) ? escaped(character) : character;
  if (kept.length <= longest) return kept;
  const end = Math.floor((longest - 3) / 2);
  return `${kept.slice(0, longest - 3 - end)}...${kept.slice(-end)}`;
}

/** Returns any value for a message, with quotes around text. */
export function quoted(value: unknown): string {
  if (typeof value === "string") return `'${shown(value)}'`;
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean" || value === undefined) {
    return shown(String(value));
  }
  if (value === null) return "null";
  if (Array.isArray(value)) {
    const few = value.slice(0, 6).map(quoted);
    return shown(`[${few.join(", ")}${value.length > 6 ? ", ..." : ""}]`, 2 * LONGEST_NAME);
  }
  return `a ${shown((value as object).constructor?.name ?? typeof value)}`;
}

function escaped(character: string): string {
  const code = character.codePointAt(0) as number;
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
}

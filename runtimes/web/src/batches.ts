// The plan of batches: which sequences a prediction runs together.

/** The most items of a batch, and the most tokens of one with its padding, where a caller names none. */
export const BATCH_SIZE = 32;
export const BATCH_TOKENS = 512;

/**
 * Returns the items of each batch, by their places, such that neighbours in length run together.
 *
 * The items are sorted by group, then by length. A batch takes the next one while it is of the same group, and neither the
 * number of items nor that of tokens, which is items times the longest length, goes beyond its limit. An item that alone has
 * too many tokens is a batch of its own. conformance/batches has cases.
 */
export function planBatches(
  lengths: readonly number[],
  groups: readonly string[],
  batchSize: number = BATCH_SIZE,
  batchTokens: number = BATCH_TOKENS,
): number[][] {
  const group = (place: number): string => groups[place] as string;
  const length = (place: number): number => lengths[place] as number;
  const sorted = [...lengths.keys()].sort(
    (left, right) => (group(left) < group(right) ? -1 : group(left) > group(right) ? 1 : length(left) - length(right)),
  );
  const batches: number[][] = [];
  for (const place of sorted) {
    const last = batches.at(-1);
    const size = (last?.length ?? 0) + 1;
    if (last && group(last[0] as number) === group(place) && size <= batchSize && size * length(place) <= batchTokens) {
      last.push(place);
    } else batches.push([place]);
  }
  return batches;
}

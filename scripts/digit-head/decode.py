"""CTC: reading freely, the likelihood of any number, and a number's neighbours. The Rust side does the same."""
import numpy as np

BLANK = 0


def greedy(lp: np.ndarray) -> str:
    best, out, last = lp.argmax(1), [], -1
    for b in best:
        if b != last and b != BLANK:
            out.append(int(b) - 1)
        last = b
    return "".join(map(str, out))


def beam(lp: np.ndarray, width: int = 16) -> list[tuple[str, float]]:
    """Prefix search: the likeliest strings with all their paths summed, best first."""
    beams = {(): (0.0, -np.inf)}
    for row in lp:
        tokens = [int(t) for t in np.where(row[1:] > -9.0)[0] + 1]
        new: dict[tuple, list[float]] = {}

        def add(prefix, which, value):
            e = new.setdefault(prefix, [-np.inf, -np.inf])
            e[which] = np.logaddexp(e[which], value)

        for prefix, (pb, pn) in beams.items():
            both = np.logaddexp(pb, pn)
            add(prefix, 0, both + row[0])
            if prefix:
                add(prefix, 1, pn + row[prefix[-1]])
            for t in tokens:
                add(prefix + (t,), 1, (pb if prefix and prefix[-1] == t else both) + row[t])
        beams = dict(sorted(((p, (v[0], v[1])) for p, v in new.items()), key=lambda e: -np.logaddexp(*e[1]))[:width])
    return [("".join(str(t - 1) for t in p), float(np.logaddexp(*v))) for p, v in beams.items()]


def likelihoods(lp: np.ndarray, strings: list[str]) -> np.ndarray:
    """log P(string) of each, by the forward algorithm, all at once."""
    longest = max(map(len, strings))
    n, s = len(strings), 2 * longest + 1
    labels = np.zeros((n, s), int)
    for i, t in enumerate(strings):
        labels[i, 1 : 2 * len(t) : 2] = [int(c) + 1 for c in t]
    skip = np.zeros((n, s), bool)
    skip[:, 2:] = (labels[:, 2:] != BLANK) & (labels[:, 2:] != labels[:, :-2])
    a = np.full((n, s), -np.inf)
    a[:, 0] = lp[0, BLANK]
    if s > 1:
        a[:, 1] = lp[0, labels[:, 1]]
    for row in lp[1:]:
        one, two = np.full_like(a, -np.inf), np.full_like(a, -np.inf)
        one[:, 1:] = a[:, :-1]
        two[:, 2:] = np.where(skip[:, 2:], a[:, :-2], -np.inf)
        top = np.maximum(np.maximum(a, one), two)
        top = np.where(np.isfinite(top), top, 0.0)
        with np.errstate(divide="ignore"):
            a = top + np.log(np.exp(a - top) + np.exp(one - top) + np.exp(two - top)) + row[labels]
    ends = np.array([2 * len(t) for t in strings])
    at = np.arange(n)
    return np.logaddexp(a[at, ends], np.where(ends > 0, a[at, np.maximum(ends - 1, 0)], -np.inf))


def neighbours(text: str) -> dict[str, list[str]]:
    """Every number one slip away, by kind."""
    subs = {text[:i] + d + text[i + 1 :] for i in range(len(text)) for d in "0123456789"} - {text}
    swaps = {text[:i] + text[i + 1] + text[i] + text[i + 2 :] for i in range(len(text) - 1)} - {text}
    dels = {text[:i] + text[i + 1 :] for i in range(len(text))}
    ins = {text[:i] + d + text[i:] for i in range(len(text) + 1) for d in "0123456789"}
    return {"substitution": sorted(subs), "swap": sorted(swaps), "deletion": sorted(dels), "insertion": sorted(ins)}


def edits(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]

"""CTC: reading freely, the likelihood of any number, and a number's neighbours. The Rust side does the same."""
import numpy as np

from model import TOKEN

BLANK = 0
SIGN = {i: c for c, i in TOKEN.items()}  # a token as one sign: digits as themselves, the others as letters (model.py)


def greedy(lp: np.ndarray) -> str:
    best, out, last = lp.argmax(1), [], -1
    for b in best:
        if b != last and b != BLANK:
            out.append(SIGN[int(b)])
        last = b
    return "".join(out)


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
    return [("".join(SIGN[t] for t in p), float(np.logaddexp(*v))) for p, v in beams.items()]


def likelihoods(lp: np.ndarray, strings: list[str]) -> np.ndarray:
    """log P(string) of each, by the forward algorithm, all at once."""
    longest = max(map(len, strings))
    n, s = len(strings), 2 * longest + 1
    labels = np.zeros((n, s), int)
    for i, t in enumerate(strings):
        labels[i, 1 : 2 * len(t) : 2] = [TOKEN[c] for c in t]
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


def neighbour_likelihoods(lp: np.ndarray, text: str) -> tuple[float, dict[str, tuple[list[str], np.ndarray]]]:
    """log P of a number and of all its neighbours, exactly: what comes before and behind the slip is computed once for all of them."""
    lp = lp.astype(np.float64)
    frames, labels = len(lp), [int(c) + 1 for c in text]
    n = len(labels)
    la = np.logaddexp
    # fwd_label[t, i], fwd_blank[t, i]: the first i labels said by frame t, ending in the label or in a blank. Row 0: before the first frame.
    fwd_label, fwd_blank = np.full((frames + 1, n + 1), -np.inf), np.full((frames + 1, n + 1), -np.inf)
    fwd_blank[0, 0] = 0.0
    same = np.array([False, False] + [a == b for a, b in zip(labels, labels[1:])])
    emit = lp[:, labels]
    for t in range(frames):
        fwd_blank[t + 1] = la(fwd_label[t], fwd_blank[t]) + lp[t, BLANK]
        step = la(fwd_blank[t, :-1], np.where(same[1:], -np.inf, fwd_label[t, :-1]))
        fwd_label[t + 1, 1:] = la(fwd_label[t, 1:], step) + emit[t]
    # back[t, j]: label j (from 1) is said at frame t, and the rest behind it till the end.
    back, back_blank = np.full((frames + 1, n + 2), -np.inf), np.full((frames + 1, n + 2), -np.inf)
    same_next = np.array([False] + [a == b for a, b in zip(labels, labels[1:])] + [False, False])
    back[frames, n + 1] = back_blank[frames, n] = 0.0
    for t in range(frames - 1, -1, -1):
        # back_blank[t, j]: a blank behind label j at frame t and on
        nxt = np.full(n + 2, -np.inf)
        nxt[:-1] = back[t + 1, 1:]
        nxt[n] = 0.0 if t + 1 == frames else -np.inf
        back_blank[t] = lp[t, BLANK] + (la(back_blank[t + 1], nxt) if t + 1 < frames else np.where(np.arange(n + 2) == n, 0.0, -np.inf))
        here = la(back[t + 1], back_blank[t + 1]) if t + 1 < frames else np.where(np.arange(n + 2) == n, 0.0, -np.inf)
        here = la(here, np.where(same_next, -np.inf, nxt)) if t + 1 < frames else here
        back[t, 1 : n + 1] = here[1 : n + 1] + emit[t]
    own = float(la(fwd_label[frames, n], fwd_blank[frames, n]))
    kinds = {}
    for kind, slips in slips_of(text).items():
        if not slips:
            continue
        keep = np.array([s[0] for s in slips])  # so many labels before
        then = np.array([s[2] for s in slips])  # the first label behind (from 1; n + 1: none)
        steps = max(len(s[1]) for s in slips)
        before_label = np.array([labels[k - 1] if k else 0 for k in keep])
        behind = np.array([labels[j - 1] if j <= n else 0 for j in then])
        label, blank = fwd_label[:, keep], fwd_blank[:, keep]
        last = before_label
        for k in range(steps):
            d = np.array([s[1][k] for s in slips])
            new_label, new_blank = np.full((frames + 1, len(slips)), -np.inf), np.full((frames + 1, len(slips)), -np.inf)
            joined = la(blank, np.where(last == d, -np.inf, label))
            said = lp[:, d]
            for t in range(frames):
                new_blank[t + 1] = la(new_label[t], new_blank[t]) + lp[t, BLANK]
                new_label[t + 1] = la(new_label[t], joined[t]) + said[t]
            label, blank, last = new_label, new_blank, d
        into = la(blank, np.where(last == behind, -np.inf, label))[:frames] + back[:frames, then]
        top = into.max(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            total = top + np.log(np.exp(into - np.where(np.isfinite(top), top, 0)).sum(0))
        total = np.where(then == n + 1, la(label[frames], blank[frames]), np.where(np.isfinite(top), total, -np.inf))
        kinds[kind] = ([text[: s[0]] + "".join(str(d - 1) for d in s[1]) + text[s[2] - 1 :] for s in slips], total)
    return own, kinds


def slips_of(text: str) -> dict[str, list[tuple[int, tuple[int, ...], int]]]:
    """Neighbours as (labels kept before, new labels, first label behind, from 1); each number once a kind."""
    n, out, seen = len(text), {}, set()
    t = [int(c) + 1 for c in text]
    out["substitution"] = [(i, (d,), i + 2) for i in range(n) for d in range(1, 11) if d != t[i]]
    out["swap"] = [(i, (t[i + 1], t[i]), i + 3) for i in range(n - 1) if t[i] != t[i + 1]]
    out["deletion"] = [(i, (), i + 2) for i in range(n) if i == 0 or t[i] != t[i - 1]]
    out["insertion"] = []
    for i in range(n + 1):
        for d in range(1, 11):
            s = text[:i] + str(d - 1) + text[i:]
            if s not in seen:
                seen.add(s)
                out["insertion"].append((i, (d,), i + 1))
    return out

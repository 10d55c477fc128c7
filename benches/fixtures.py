"""Collects the card numbers among the synthetic callers for the bench: `fixtures.py audio-fixtures OUT` writes OUT/index.csv and links."""
import csv, os, shutil, sys, tomllib

WORDS = {w: d for d, w in enumerate("zero one two three four five six seven eight nine".split())} | {"oh": 0}


def luhn(digits):
    return sum(sum(divmod(2 * d, 10)) if i % 2 else d for i, d in enumerate(reversed(digits))) % 10 == 0


def main():
    folder, out = sys.argv[1:3]
    os.makedirs(out, exist_ok=True)
    rows = []
    with open(os.path.join(folder, "manifest.toml"), "rb") as f:
        for clip in tomllib.load(f)["clip"]:
            words = [w for w in clip["text"].replace("|", " ").replace(",", " ").replace(".", " ").lower().split()]
            digits = [WORDS[w] for w in words if w in WORDS]
            if len(digits) == len(words) == 16 and luhn(digits):
                name = clip["file"].replace("/", "-")
                shutil.copyfile(os.path.join(folder, clip["file"]), os.path.join(out, name))
                rows.append((name, clip["file"].split("/")[0], "".join(map(str, digits)), clip["seconds"]))
    if not rows:
        sys.exit(f"{folder}/manifest.toml names no 16-digit card numbers")
    with open(os.path.join(out, "index.csv"), "w", newline="") as f:
        csv.writer(f).writerows([("file", "speaker", "text", "duration_s"), *rows])


if __name__ == "__main__":
    main()

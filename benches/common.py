"""What the bench and the peers' evaluation share: our side asked in turns, digits of a transcript, percentiles, the machine."""
import json, os, platform, subprocess, sys

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy and the peers are loaded


class Ours:
    """`voicepay eval bench`: requests and answers are JSON lines."""

    def __init__(self, binary):
        self.child = subprocess.Popen([binary, "eval", "bench"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request):
        self.child.stdin.write(json.dumps(request) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            sys.exit("voicepay ended; its message stands above")
        return json.loads(line)

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def digits_of(text):
    """Digits in a free transcript, words among them."""
    words = dict(zip("zero oh one two three four five six seven eight nine".split(), "00123456789"))
    for word, digit in words.items():
        text = text.lower().replace(word, digit)
    return "".join(c for c in text if c.isdigit())


def edit_distance(said, read):
    """Levenshtein."""
    row = list(range(len(read) + 1))
    for i, a in enumerate(said, 1):
        corner, row[0] = i - 1, i
        for j, b in enumerate(read, 1):
            corner, row[j] = row[j], min(corner + (a != b), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def percentile(values, q):
    values = sorted(values)
    at = q * (len(values) - 1)
    low = int(at)
    return values[low] + (at - low) * (values[min(low + 1, len(values) - 1)] - values[low])


def cpu():
    with open("/proc/cpuinfo") as f:
        names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    return names[0] if names else platform.machine()


def load():
    return f"{os.getloadavg()[0]:.1f}"


def reader(folder):
    """faster-whisper as its users run it: int8, beam 5, one thread here."""
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=1, num_workers=1)

    def transcribe(samples):
        segments, _ = model.transcribe(samples, language="en", beam_size=5, without_timestamps=True, condition_on_previous_text=False)
        return "".join(s.text for s in segments)

    return transcribe

#!/usr/bin/env python3
"""Voices over Opus as browsers send it: `make eval-opus` (DATA=folder SPLIT=name LIMIT=utterances).

Ten digits of each genuine card utterance are rendered (`voicepay eval render`), coded by libopus (opusenc: frames of 20 ms, voice, in-band FEC where packets are lost),
lose packets at random, are decoded by libopus with FEC and concealment, and are judged by `voicepay eval voiceprint` against voices enrolled over G.711: each utterance
against its own speaker and every other one of its source. One line of JSON a condition; the last lines are a table.
"""
import argparse
import csv
import ctypes
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import wave

CONDITIONS = [(64, 0), (24, 0), (12, 0), (8, 0), (6, 0), (24, 10), (12, 10), (6, 10)]  # kbit/s, percent lost
DIGITS = 10
RATE = 16_000
FRAME = RATE // 50
SKIPPED_PACKETS = 2  # OpusHead and OpusTags


def packets(data: bytes):
    """The packets of an Ogg stream (RFC 3533), its two headers left out."""
    at, part, seen = 0, b"", 0
    while at + 27 <= len(data):
        assert data[at : at + 4] == b"OggS", "a page of Ogg begins otherwise"
        lacing = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + len(lacing)
        for length in lacing:
            part += data[at : at + length]
            at += length
            if length < 255:
                if seen >= SKIPPED_PACKETS:
                    yield part
                part, seen = b"", seen + 1


class Decoder:
    """libopus, one channel at 16 kHz."""

    def __init__(self, library):
        self.library = library
        error = ctypes.c_int()
        library.opus_decoder_create.restype = ctypes.c_void_p
        self.state = ctypes.c_void_p(library.opus_decoder_create(RATE, 1, ctypes.byref(error)))
        assert error.value == 0, f"libopus: error {error.value}"
        self.room = (ctypes.c_int16 * FRAME)()

    def frame(self, packet, fec=False) -> bytes:
        count = self.library.opus_decode(self.state, packet, len(packet or b""), self.room, FRAME, int(fec))
        assert count == FRAME, f"libopus: {count}"
        return bytes(self.room)

    def close(self):
        self.library.opus_decoder_destroy(self.state)


def heard(library, sent, percent_lost: int, seed: str) -> bytes:
    """What comes out, with lost packets taken from the next one's FEC, or concealed."""
    dice = random.Random(seed)
    there = [None if dice.random() * 100 < percent_lost else packet for packet in sent]
    decoder, sound = Decoder(library), b""
    for n, packet in enumerate(there):
        following = there[n + 1] if n + 1 < len(there) else None
        if packet is None and following is not None:
            sound += decoder.frame(following, fec=True)
        else:
            sound += decoder.frame(packet)
    decoder.close()
    return sound


def write_list(path: pathlib.Path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voicepay", required=True, help="the program")
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, default=0, help="utterances; all by default")
    args = parser.parse_args()
    library = ctypes.CDLL("libopus.so.0")
    trials = args.data / args.split / "trials"
    lists = {name: list(csv.DictReader((trials / f"{name}.csv").open())) for name in ("card_utterances", "sv_card_trials")}
    genuine = {row["utt_id"]: row for row in lists["card_utterances"] if row["role"] != "impostor"}
    listed = [row for row in lists["sv_card_trials"] if row["target"] == "1" and row["utt_id"] in genuine]
    if args.limit:
        listed = random.Random(0).sample(listed, min(args.limit, len(listed)))
    with tempfile.TemporaryDirectory(prefix="voicepay-opus-") as work:
        work = pathlib.Path(work)
        whole = work / "whole"
        render = [args.voicepay, "eval", "render", "--data", args.data, "--split", args.split, "--list", "card_utterances.csv", "--codec", "none", "--digits", str(DIGITS), "--out", whole]
        subprocess.run(render, check=True, stdout=subprocess.DEVNULL)
        split = work / "data" / args.split
        (split / "trials").mkdir(parents=True)
        for place in (args.data / args.split).iterdir():
            if place.is_dir() and place.name != "trials":
                (split / place.name).symlink_to(place.resolve())
        (split / "trials" / "enrolment.csv").write_text((trials / "enrolment.csv").read_text())
        write_list(split / "trials" / "sv_card_trials.csv", listed)
        # One clip, which has to be one digit: what is said is not asked here.
        rows = [dict(genuine[row["utt_id"]], text="0", n_clips="1", clips=f"{args.split}/coded/{row['utt_id']}.wav", gaps_ms="", lead_ms="0", tail_ms="0") for row in listed]
        write_list(split / "trials" / "card_utterances.csv", rows)
        (split / "coded").mkdir()
        table = []
        for kbps, percent_lost in [(None, 0)] + CONDITIONS:
            sent_bytes, seconds = 0, 0.0
            for n, row in enumerate(listed):
                name = row["utt_id"]
                source, target = whole / f"{name}.wav", split / "coded" / f"{name}.wav"
                if kbps is None:
                    target.unlink(missing_ok=True)
                    target.symlink_to(source)
                    continue
                coded = work / "coded.opus"
                subprocess.run(["opusenc", "--quiet", "--speech", "--bitrate", str(kbps), "--framesize", "20", "--expect-loss", str(percent_lost), source, coded], check=True)
                sent = list(packets(coded.read_bytes()))
                sound = heard(library, sent, percent_lost, name)
                sent_bytes += sum(map(len, sent))
                seconds += len(sound) / 2 / RATE
                target.unlink(missing_ok=True)
                with wave.open(str(target), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(RATE)
                    file.writeframes(sound)
                if n % 100 == 0:
                    print(f"Opus {kbps} kbit/s, {percent_lost} % lost: {n} of {len(listed)} coded", file=sys.stderr)
            judged = [args.voicepay, "eval", "voiceprint", "--data", work / "data", "--split", args.split, "--pairs", "all", "--json"]
            over = ["--codec", "mulaw"] if kbps is None else ["--codec", "none", "--enrol-codec", "mulaw"]
            told = json.loads(subprocess.run([*judged, *over], check=True, stdout=subprocess.PIPE, text=True).stdout.strip().splitlines()[-1])
            line = "G.711" if kbps is None else f"Opus {kbps} kbit/s" + (f", {percent_lost} % lost" if percent_lost else "")
            at = told["at_thresholds"]
            row = {
                "line": line,
                "kbps_sent": round(sent_bytes * 8 / seconds / 1_000, 1) if seconds else None,
                "genuine": told["genuine_trials"],
                "impostor": told["impostor_trials"],
                "eer": told["eer"],
                "eer_95": told.get("intervals_95", {}).get("eer"),
                "genuine_accepted": at["genuine_accepted"],
                "genuine_rejected": at["genuine_rejected"],
                "impostor_accepted": at["impostor_accepted"],
            }
            print(json.dumps(row), flush=True)
            table.append(row)
    print("\n| line | sent | EER (95 %) | known at once | asked for other digits | somebody else known |\n|---|---|---|---|---|---|")
    for row in table:
        between = "" if not row["eer_95"] else f" ({row['eer_95']['low'] * 100:.1f}–{row['eer_95']['high'] * 100:.1f})"
        unsure = 1 - row["genuine_accepted"] - row["genuine_rejected"]
        sent = "64" if row["kbps_sent"] is None else row["kbps_sent"]
        print(f"| {row['line']} | {sent} kbit/s | {row['eer'] * 100:.1f} %{between} | {row['genuine_accepted'] * 100:.1f} % | {unsure * 100:.1f} % | {row['impostor_accepted'] * 100:.2f} % |")


if __name__ == "__main__":
    os.environ.setdefault("NO_COLOR", "1")
    main()

#!/usr/bin/env bash
# Everything that the README claims of recognition, measured on this machine: voice, numbers, decisions and the peers, in one run, written
# to models/REPORT.md with charts. Called by `make eval`; about half an hour on two cores.
#   scripts/eval.sh [--no-peers] [--limit N] [--peers-limit N] [--out DIR]     (samples: of each list; of what peers hear, 100 numbers and 200 voices)
# DATA names a speech data folder (default ../shared/speechdata), SPLIT a split in it (default dev). The peers live in a Python environment
# outside the repository; WHEELS may name a folder of wheels already downloaded.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peers-env.sh"
cd "$ROOT"
export PATH="$HOME/.cargo/bin:$PATH"

data="${DATA:-../shared/speechdata}" split="${SPLIT:-dev}" with_peers=yes limit=() out=models number_sample=100 voice_sample=200
while [ $# -gt 0 ]; do
    case "$1" in
    --no-peers) with_peers=no; shift ;;
    --limit) limit=(--limit "$2"); shift 2 ;;
    --peers-limit) number_sample="$2"; voice_sample="$2"; shift 2 ;;
    --out) out="$2"; shift 2 ;;
    *) echo "eval: usage: scripts/eval.sh [--no-peers] [--limit N] [--peers-limit N] [--out DIR]" >&2; exit 2 ;;
    esac
done
[ -d "$data/$split/trials" ] || fail "there is no speech data in $data/$split: name a folder with DATA=…, SPLIT=…"

step "Building"
cargo build --quiet --locked --bin voicepay
voicepay="${CARGO_TARGET_DIR:-target}/debug/voicepay" # the one profile is optimised
"$voicepay" models fetch >&2
done_step

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
peers=()
if [ "$with_peers" = yes ]; then
    peers_environment full
    step "Peers, in turns with ours on one thread"
    render() { # NAME LIST N EXTRA…
        local name="$1" list="$2" n="$3"
        shift 3
        "$voicepay" eval render --data "$data" --split "$split" --list "$list" --limit "$n" --out "$work/$name" "$@" >/dev/null
    }
    babble=(--noise noise/babble8 --snr)
    # The same utterances in each condition; nobody who trained our recogniser.
    render clean card_utterances_confirmed.csv "$number_sample" --unheard
    render babble15 card_utterances_confirmed.csv "$number_sample" --unheard "${babble[@]}" 15
    render babble10 card_utterances_confirmed.csv "$number_sample" --unheard "${babble[@]}" 10
    render enrolment enrolment.csv 1000000
    render voices16 card_utterances.csv "$voice_sample"
    render voices4 card_utterances.csv "$voice_sample" --digits 4
    render voices16noisy card_utterances.csv "$voice_sample" "${babble[@]}" 15
    "$PEERS_PYTHON" benches/peers.py --voicepay "$voicepay" --weights "$PEERS_MODELS/campplus.safetensors" --ge2e "$PEERS_GE2E" \
        --whisper "tiny.en=$PEERS_WHISPER_TINY" "base=$PEERS_WHISPER_BASE" \
        --numbers "clean=$work/clean" "babble 15 dB=$work/babble15" "babble 10 dB=$work/babble10" \
        --enrolment "$work/enrolment" --voices "16 digits, clean=$work/voices16" "4 digits, clean=$work/voices4" "16 digits, babble 15 dB=$work/voices16noisy" \
        --out "$work/peers.json"
    peers=(--peers "$work/peers.json")
    done_step
fi

step "Numbers, voices, decisions under every condition"
"$voicepay" eval all --data "$data" --split "$split" --out "$out" ${limit[@]+"${limit[@]}"} ${peers[@]+"${peers[@]}"}
done_step

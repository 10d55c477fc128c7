//! What goes wrong on a user's machine: each trouble has one clear sentence and an exit code of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)]

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

/// Runs `voicepay ARGS` in `dir`; its exit code and what it said on standard error.
fn fails(dir: &Path, env: &[(&str, &str)], args: &[&str]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_voicepay"))
        .args(args)
        .current_dir(dir)
        .env("VOICEPAY__SIP__LISTEN", "127.0.0.1:0")
        .env_remove("VOICEPAY_LOG")
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!said.contains("panicked"), "{args:?}: {said}");
    (out.status.code().unwrap_or(-1), said)
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or("")
}

#[test]
fn a_missing_and_a_corrupt_model_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("models");
    let env = [("VOICEPAY_MODELS", models.to_str().unwrap())];
    let (code, said) = fails(dir.path(), &env, &["serve"]);
    assert_eq!(code, 11, "{said}");
    assert!(said.contains("voicepay models fetch"), "{said}");
    std::fs::create_dir(&models).unwrap();
    for file in ["campplus.safetensors", "whisper-tiny.en.ggml.bin"] {
        std::fs::write(models.join(file), b"not a model").unwrap();
    }
    let (code, said) = fails(dir.path(), &env, &["serve"]);
    assert_eq!(code, 12, "{said}");
    assert!(last_line(&said).contains("corrupt") && last_line(&said).contains("voicepay models fetch"), "{said}");
}

#[test]
fn a_port_that_is_taken_names_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = fails(dir.path(), &[("VOICEPAY__SIP__LISTEN", &address)], &["serve"]);
    assert_eq!(code, 14, "{said}");
    assert!(last_line(&said).contains("sip.listen") && last_line(&said).contains(&address), "{said}");
}

#[test]
fn a_wrong_key_in_the_file_or_the_environment_names_itself() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("voicepay.toml"), "[sip]\nlisten = \"127.0.0.1:5060\"\nmax_cals = 3\n").unwrap();
    let (code, said) = fails(dir.path(), &[], &["config", "check"]);
    assert_eq!(code, 10, "{said}");
    assert!(said.contains("line 3") && said.contains("max_cals"), "{said}");
    std::fs::remove_file(dir.path().join("voicepay.toml")).unwrap();
    let (code, said) = fails(dir.path(), &[("VOICEPAY__DECISION__VOICE_ACCEPT_FAR", "high")], &["config", "check"]);
    assert_eq!(code, 10, "{said}");
    assert!(said.contains("VOICEPAY__DECISION__VOICE_ACCEPT_FAR") && said.contains("decision.voice_accept_far"), "{said}");
    let (code, said) = fails(dir.path(), &[("VOICEPAY__DECISION__VOICE_UNSURE_FAR", "0.000001")], &["config", "check"]);
    assert_eq!(code, 10, "{said}");
    assert!(said.contains("decision.voice_unsure_far"), "{said}");
}

fn wav(path: &Path, rate: u32, channels: u16, samples: impl Iterator<Item = i16>) {
    let spec = hound::WavSpec { channels, sample_rate: rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    samples.for_each(|s| writer.write_sample(s).unwrap());
    writer.finalize().unwrap();
}

#[test]
fn recordings_that_cannot_be_used_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_voicepay"))
        .args(["--json", "customer", "add", "--name", "Ann", "--number", "+442079460958"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let customer: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let customer = customer["id"].as_str().unwrap();
    let tone = |amplitude: f32| (0..16_000).map(move |i| ((i as f32 * 0.2).sin() * amplitude) as i16);
    let file = |name: &str| dir.path().join(name);
    wav(&file("rate.wav"), 44_100, 1, tone(8_000.0));
    wav(&file("stereo.wav"), 8_000, 2, tone(8_000.0));
    wav(&file("short.wav"), 8_000, 1, tone(8_000.0).take(40));
    wav(&file("clipped.wav"), 8_000, 1, tone(200_000.0));
    wav(&file("silent.wav"), 8_000, 1, tone(0.0));
    std::fs::write(file("text.wav"), "no sound at all").unwrap();
    for (name, word) in [
        ("rate", "44100"),
        ("stereo", "channels"),
        ("short", "ms"),
        ("clipped", "clipped"),
        ("silent", "silent"),
        ("text", "WAV"),
        ("gone", "gone"),
    ] {
        let path = file(&format!("{name}.wav"));
        let args = ["enrol", "from-wav", "--customer", customer, "--consent-by", "the test", path.to_str().unwrap()];
        let (code, said) = fails(dir.path(), &[], &args);
        assert_eq!(code, 15, "{name}: {said}");
        assert!(last_line(&said).contains(word) && last_line(&said).contains(&format!("{name}.wav")), "{name}: {said}");
    }
}

#[test]
fn measurements_that_would_prove_nothing_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let trials = dir.path().join("data/dev/trials");
    std::fs::create_dir_all(&trials).unwrap();
    let write = |name: &str, text: &str| std::fs::write(trials.join(name), text).unwrap();
    write("empty.csv", "path,speaker,text\n");
    write("known.csv", "path,speaker,text\ndev/fsdd_en/theo/1.flac,theo,12345678\n");
    let natural = "trial_id,source,enrol_speaker,test_path,test_speaker,kind,target\n";
    let impostor = "N1,line,a,dev/line/b/1.flac,b,impostor,0\n";
    write("impostors.csv", &format!("{natural}{impostor}"));
    write("overlap.csv", &format!("{natural}{impostor}N2,line,a,dev/line/a/1.flac,a,genuine,1\n"));
    write(
        "natural_enrolment.csv",
        "source,speaker,paths\nline,a,dev/line/a/0.flac;dev/line/a/1.flac\nline,b,dev/line/b/0.flac\n",
    );
    for (what, list, why) in [
        ("number", "empty.csv", "empty.csv: lists nothing"),
        ("number", "known.csv", "every speaker of known.csv has trained the recogniser"),
        ("decision", "known.csv", "every speaker of known.csv has trained the recogniser"),
        ("voiceprint", "impostors.csv", "impostors.csv holds no genuine trials"),
        ("voiceprint", "overlap.csv", "the enrolment and the test share recordings: dev/line/a/1.flac"),
        ("number", "nowhere.csv", "there is no list nowhere.csv"),
    ] {
        let (code, said) = fails(dir.path(), &[], &["eval", what, "--data", "data", "--list", list]);
        assert_eq!(code, 22, "{what} {list}: {said}");
        assert!(last_line(&said).contains(why), "{what} {list}: {said}");
    }
}

#[test]
fn the_demo_starts_from_nothing_only() {
    let dir = tempfile::tempdir().unwrap();
    let (code, said) = fails(dir.path(), &[], &["demo", "--data-dir", "."]);
    assert_eq!(code, 18, "{said}");
}

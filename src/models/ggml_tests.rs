//! Tests of the conversion: a small made-up model, and what is wrong with files.

use super::*;
use proptest::prelude::*;

/// A Whisper of one layer, 8 wide, with 20 tokens; every value is its place in its variable.
fn small_model() -> Vec<u8> {
    let (n, mut all) = (8usize, Vec::<(String, Vec<usize>)>::new());
    let mut add = |name: &str, dims: &[usize]| all.push((name.to_owned(), dims.to_vec()));
    for side in ["encoder", "decoder"] {
        let l = format!("{side}/layer_0");
        for norm in ["self_attention", "attention", "ffn"] {
            add(&format!("{l}/{norm}/layer_norm/gamma"), &[n]);
            add(&format!("{l}/{norm}/layer_norm/beta"), &[n]);
        }
        for (name, out, inp) in [
            ("self_attention/linear_0", 3 * n, n),
            ("self_attention/linear_1", n, n),
            ("attention/linear_0", n, n),
            ("attention/linear_1", 2 * n, n),
            ("attention/linear_2", n, n),
            ("ffn/linear_0", 4 * n, n),
            ("ffn/linear_1", n, 4 * n),
        ] {
            add(&format!("{l}/{name}/weight"), &[out, inp]);
            add(&format!("{l}/{name}/bias"), &[out]);
        }
        add(&format!("{side}/layer_norm/gamma"), &[n]);
        add(&format!("{side}/layer_norm/beta"), &[n]);
        add(&format!("{side}/position_encodings/encodings"), &[6, n]);
    }
    add("decoder/embeddings/weight", &[20, n]);
    add("encoder/conv1/weight", &[n, 80, 3]);
    add("encoder/conv1/bias", &[n]);
    add("encoder/conv2/weight", &[n, n, 3]);
    add("encoder/conv2/bias", &[n]);
    let mut file = Vec::new();
    let text = |file: &mut Vec<u8>, s: &str| {
        file.extend(u16::try_from(s.len() + 1).unwrap().to_le_bytes());
        file.extend(s.bytes().chain([0]));
    };
    file.extend(6u32.to_le_bytes());
    text(&mut file, "WhisperSpec");
    file.extend(3u32.to_le_bytes());
    file.extend(u32::try_from(all.len() + 2).unwrap().to_le_bytes());
    for side in ["encoder", "decoder"] {
        text(&mut file, &format!("{side}/num_heads"));
        file.extend([0, KIND_I16, 2, 0, 0, 0, 2, 0]);
    }
    for (name, dims) in all {
        text(&mut file, &name);
        file.push(u8::try_from(dims.len()).unwrap());
        dims.iter().for_each(|d| file.extend(u32::try_from(*d).unwrap().to_le_bytes()));
        let elements: usize = dims.iter().product();
        file.push(KIND_F16);
        file.extend(u32::try_from(2 * elements).unwrap().to_le_bytes());
        (0..elements).for_each(|i| file.extend(u16::try_from(i).unwrap().to_le_bytes()));
    }
    file.extend(0u32.to_le_bytes());
    file
}

fn few_tokens() -> Vec<Vec<u8>> {
    tokens_of(br#"["!","\u0120a","\u0100","<|endoftext|>"]"#).unwrap()
}

#[test]
fn a_small_model_converts_with_its_projections_apart() {
    let out = ggml_of(&small_model(), &few_tokens()).unwrap();
    assert_eq!(out[..4], *b"lmgg");
    assert_eq!(out, ggml_of(&small_model(), &few_tokens()).unwrap(), "the same input gives the same bytes");
    let key = b"encoder.blocks.0.attn.key.weight";
    let at = out.windows(key.len()).position(|w| w == key).unwrap() + key.len();
    assert_eq!(u16::from_le_bytes([out[at], out[at + 1]]), 64, "k follows the 8 × 8 values of q");
    assert!(!out.windows(8).any(|w| w == b"key.bias"));
}

#[test]
fn tokens_are_bytes_again() {
    assert_eq!(few_tokens(), vec![b"!".to_vec(), b" a".to_vec(), vec![0]]);
    let json = br#"{"model":{"vocab":{"b":1,"a":0,"<|endoftext|>":2}}}"#;
    assert_eq!(tokens_of(json).unwrap(), vec![b"a".to_vec(), b"b".to_vec()]);
}

#[test]
fn a_bad_vocabulary_is_named_not_used() {
    for (bad, what) in [
        (&b"\xff"[..], "UTF-8"),
        (b"[1]", "strings"),
        (b"{}", "model.vocab"),
        (br#"{"model":{"vocab":{"a":7}}}"#, "gaps"),
        (br#"{"model":{"vocab":{"a":0,"b":0}}}"#, "share"),
        (br#"["a"]"#, "endoftext"),
        (br#"["\u4e00","<|endoftext|>"]"#, "byte-level"),
        (b"a\nb", "neither"),
    ] {
        let why = tokens_of(bad).unwrap_err();
        assert!(why.contains(what), "{why}");
    }
}

#[test]
fn every_truncation_is_an_error_that_says_so() {
    let model = small_model();
    for cut in (0..model.len() - 4).step_by(7) {
        let why = ggml_of(&model[..cut], &few_tokens()).unwrap_err();
        assert!(why.contains("ends"), "{cut}: {why}");
    }
}

#[test]
fn dimensions_that_lie_allocate_nothing() {
    let mut model = small_model();
    let name = b"decoder/embeddings/weight\0";
    let at = model.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 1;
    model[at..at + 8].fill(0xff);
    assert!(ggml_of(&model, &few_tokens()).unwrap_err().contains("decoder/embeddings/weight"));
}

#[test]
fn halves_become_singles_exactly() {
    for (half, single) in
        [(0x0000, 0.0), (0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0x0001, 5.960_464_5e-8), (0x03ff, 6.097_555e-5)]
    {
        assert_eq!(f32_of_half(half), single);
    }
    assert!(f32_of_half(0x7e00).is_nan() && f32_of_half(0xfc00) == f32::NEG_INFINITY);
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic(flips in proptest::collection::vec((0usize..30_000, any::<u8>()), 1..8)) {
        let mut model = small_model();
        let length = model.len();
        for (at, value) in flips {
            model[at % length] = value;
        }
        let _ = ggml_of(&model, &few_tokens()); // an error or a file: both are fine
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(ggml_of(&noise, &few_tokens()).is_err());
        let _ = tokens_of(&noise);
    }
}

#[test]
#[ignore = "needs VOICEPAY_CT2, VOICEPAY_VOCABULARY and VOICEPAY_OUT: converts by hand"]
fn converts_what_the_environment_names() {
    let path = |key| std::path::PathBuf::from(std::env::var_os(key).unwrap());
    convert(&path("VOICEPAY_CT2"), &path("VOICEPAY_VOCABULARY"), &path("VOICEPAY_OUT")).unwrap();
}

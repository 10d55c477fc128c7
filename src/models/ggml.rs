//! CTranslate2's Whisper `model.bin` to whisper.cpp's ggml file, half precision. Pure bytes to bytes: the same input, the same output.
//!
//! CTranslate2 stacks q|k|v of self-attention and k|v of cross-attention; ggml wants them apart and knows no bias of k (it is zero).
//! Layout of the input: CTranslate2 `python/ctranslate2/specs/model_spec.py`, `_serialize`; of the output: whisper.cpp
//! `models/convert-pt-to-ggml.py`. Nothing here allocates by a number read from a file without holding it against the file's size.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::mel;

/// No Whisper model that we know of is larger in half precision than `medium`; a larger file is refused before it is read.
const MODEL_MAX_BYTES: u64 = 2_000_000_000;
/// A tokenizer is 2 MB.
const VOCABULARY_MAX_BYTES: u64 = 32_000_000;
/// More tokens than any Whisper has.
const VOCABULARY_MAX_TOKENS: usize = 100_000;
/// Layers of the largest Whisper.
const LAYERS_MAX: usize = 32;

/// "ggml", as whisper.cpp writes it.
const GGML_MAGIC: u32 = 0x6767_6d6c;
const GGML_F32: i32 = 0;
const GGML_F16: i32 = 1;
/// whisper.cpp tells the multilingual models by this.
const MULTILINGUAL_MIN_TOKENS: usize = 51_865;
/// The plain tokens end here.
const FIRST_SPECIAL: &str = "<|endoftext|>";
/// The window of Whisper's spectrogram: 400 samples, so 201 bins.
const MEL_BINS: usize = 201;

/// Converts. `vocabulary` is Hugging Face's `tokenizer.json` (byte-level BPE) or CTranslate2's `vocabulary.txt`/`.json`.
/// The output is written beside `out` first and renamed, so that a half-written file is never found.
pub fn convert(model_bin: &Path, vocabulary: &Path, out: &Path) -> Result<(), GgmlError> {
    let model = read_bounded(model_bin, MODEL_MAX_BYTES)?;
    let words = read_bounded(vocabulary, VOCABULARY_MAX_BYTES)?;
    let tokens = tokens_of(&words).map_err(|why| GgmlError::Vocabulary { path: vocabulary.to_owned(), why })?;
    let bytes = ggml_of(&model, &tokens).map_err(|why| GgmlError::Model { path: model_bin.to_owned(), why })?;
    write_whole(out, &bytes)
}

/// Why a conversion failed.
#[derive(Debug, thiserror::Error)]
pub enum GgmlError {
    /// Reading or writing failed.
    #[error("can't {doing} {}", .path.display())]
    Io {
        /// read or write.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The model file is not a CTranslate2 Whisper.
    #[error("{} is not a usable CTranslate2 Whisper model: {why}", .path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The vocabulary file can't be used.
    #[error("{} is not a usable vocabulary: {why}", .path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, GgmlError> {
    let io = |source| GgmlError::Io { doing: "read", path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > max {
        return Err(io(std::io::Error::other(format!("it has {length} bytes, more than the {max} that are read"))));
    }
    std::fs::read(path).map_err(io)
}

fn write_whole(out: &Path, bytes: &[u8]) -> Result<(), GgmlError> {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = out.with_file_name(name);
    let written = std::fs::File::create(&part)
        .and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()))
        .and_then(|()| std::fs::rename(&part, out));
    written.map_err(|source| {
        let _ = std::fs::remove_file(&part); // the error that matters is the one above
        GgmlError::Io { doing: "write", path: out.to_owned(), source }
    })
}

/// One variable of `model.bin`: views into the file.
#[derive(Clone, Debug)]
struct Variable<'a> {
    dims: Vec<usize>,
    kind: u8,
    data: &'a [u8],
}

/// A cursor that never reads past the end.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or("it ends in the middle of a value")?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "it ends in the middle of a value".to_owned())
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// `u16` length with the closing NUL, then the bytes.
    fn text(&mut self) -> Result<&'a str, String> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        let bytes = self.take(length)?;
        let (nul, text) = bytes.split_last().ok_or("an empty name")?;
        match (nul, std::str::from_utf8(text)) {
            (0, Ok(text)) => Ok(text),
            _ => Err("a name is not a closed string".to_owned()),
        }
    }
}

/// CTranslate2's data types with their sizes; index is the code in the file.
const KIND_BYTES: [usize; 6] = [4, 1, 2, 4, 2, 2];
const KIND_I16: u8 = 2;
const KIND_F16: u8 = 4;

fn variables_of(file: &[u8]) -> Result<BTreeMap<&str, Variable<'_>>, String> {
    let mut at = Cursor { rest: file };
    let version = at.u32()?;
    if version != 6 {
        return Err(format!("its binary version is {version}, 6 was expected"));
    }
    let spec = at.text()?;
    if spec != "WhisperSpec" {
        return Err("it holds another kind of model".to_owned());
    }
    let _revision = at.u32()?;
    let count = at.u32()?;
    let mut all = BTreeMap::new();
    for _ in 0..count {
        let name = at.text()?;
        let [rank] = at.array()?;
        let mut dims = Vec::new();
        let mut elements = 1usize;
        for _ in 0..rank {
            let dim = usize::try_from(at.u32()?).map_err(|e| e.to_string())?;
            elements = elements.checked_mul(dim).ok_or_else(|| format!("{name} has impossible dimensions"))?;
            dims.push(dim);
        }
        let [kind] = at.array()?;
        let bytes = usize::try_from(at.u32()?).map_err(|e| e.to_string())?;
        let size = KIND_BYTES.get(usize::from(kind)).ok_or_else(|| format!("{name} has unknown data type {kind}"))?;
        if elements.checked_mul(*size) != Some(bytes) {
            return Err(format!("{name} has {bytes} bytes, which its dimensions do not give"));
        }
        let data = at.take(bytes).map_err(|_| format!("it ends within {name}"))?;
        all.insert(name, Variable { dims, kind, data });
    }
    Ok(all) // aliases follow (the projection is the embedding); ggml ties them by itself
}

/// What ggml's header says, in its order.
struct Shape {
    vocabulary: usize,
    audio_context: usize,
    state: usize,
    audio_heads: usize,
    audio_layers: usize,
    text_context: usize,
    text_heads: usize,
    text_layers: usize,
    mels: usize,
}

struct Source<'a>(BTreeMap<&'a str, Variable<'a>>);

impl<'a> Source<'a> {
    fn get(&self, name: &str) -> Result<&Variable<'a>, String> {
        self.0.get(name).ok_or_else(|| format!("{name} is missing"))
    }

    /// Half-precision values of exactly these dimensions.
    fn half(&self, name: &str, dims: &[usize]) -> Result<&'a [u8], String> {
        let v = self.get(name)?;
        if v.kind != KIND_F16 {
            return Err(format!("{name} is not stored as float16; quantised models can't be converted"));
        }
        if v.dims != dims {
            return Err(format!("{name} has dimensions {:?}, expected {dims:?}", v.dims));
        }
        Ok(v.data)
    }

    fn dims<const N: usize>(&self, name: &str) -> Result<[usize; N], String> {
        let v = self.get(name)?;
        v.dims.as_slice().try_into().map_err(|_| format!("{name} has {} dimensions, expected {N}", v.dims.len()))
    }

    fn heads(&self, name: &str) -> Result<usize, String> {
        let v = self.get(name)?;
        let value = match (v.kind, v.data) {
            (KIND_I16, [a, b]) => i16::from_le_bytes([*a, *b]),
            _ => 0,
        };
        usize::try_from(value).ok().filter(|h| (1..=64).contains(h)).ok_or_else(|| format!("{name} is no number of heads"))
    }

    fn layers(&self, side: &str) -> Result<usize, String> {
        let n = (0..=LAYERS_MAX)
            .take_while(|i| self.0.contains_key(format!("{side}/layer_{i}/self_attention/linear_0/weight").as_str()))
            .count();
        if (1..=LAYERS_MAX).contains(&n) { Ok(n) } else { Err(format!("the {side} has no usable number of layers")) }
    }

    fn shape(&self) -> Result<Shape, String> {
        let [vocabulary, state] = self.dims("decoder/embeddings/weight")?;
        let [audio_context, _] = self.dims("encoder/position_encodings/encodings")?;
        let [text_context, _] = self.dims("decoder/position_encodings/encodings")?;
        let [_, mels, _] = self.dims("encoder/conv1/weight")?;
        if mels != 80 {
            return Err(format!("it takes {mels} mel bands, 80 was expected"));
        }
        Ok(Shape {
            vocabulary,
            audio_context,
            state,
            audio_heads: self.heads("encoder/num_heads")?,
            audio_layers: self.layers("encoder")?,
            text_context,
            text_heads: self.heads("decoder/num_heads")?,
            text_layers: self.layers("decoder")?,
            mels,
        })
    }
}

/// The output as it grows.
struct Sink(Vec<u8>);

impl Sink {
    fn int(&mut self, n: usize) -> Result<(), String> {
        let n = i32::try_from(n).map_err(|_| "a dimension is out of range".to_owned())?;
        self.0.extend(n.to_le_bytes());
        Ok(())
    }

    /// Header of a tensor; ggml counts dimensions from the fastest.
    fn tensor(&mut self, name: &str, dims: &[usize], kind: i32) -> Result<(), String> {
        self.int(dims.len())?;
        self.int(name.len())?;
        self.0.extend(kind.to_le_bytes());
        for d in dims.iter().rev() {
            self.int(*d)?;
        }
        self.0.extend(name.as_bytes());
        Ok(())
    }

    fn half(&mut self, name: &str, dims: &[usize], data: &[u8]) -> Result<(), String> {
        self.tensor(name, dims, GGML_F16)?;
        self.0.extend(data);
        Ok(())
    }

    fn single(&mut self, name: &str, dims: &[usize], half: &[u8]) -> Result<(), String> {
        self.tensor(name, dims, GGML_F32)?;
        for pair in half.as_chunks::<2>().0 {
            self.0.extend(f32_of_half(u16::from_le_bytes(*pair)).to_le_bytes());
        }
        Ok(())
    }
}

/// IEEE 754 half to single; exact.
fn f32_of_half(h: u16) -> f32 {
    let sign = if h & 0x8000 == 0 { 1.0 } else { -1.0 };
    let fraction = f32::from(h & 0x3ff);
    sign * match (h >> 10) & 0x1f {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        e => (1.0 + fraction / 1024.0) * 2f32.powi(i32::from(e) - 15),
    }
}

fn ggml_of(file: &[u8], tokens: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let from = Source(variables_of(file)?);
    let shape = from.shape()?;
    if tokens.len() > shape.vocabulary {
        return Err(format!("the vocabulary has {} tokens, the model only {}", tokens.len(), shape.vocabulary));
    }
    let mut to = Sink(Vec::with_capacity(file.len().saturating_add(3_000_000)));
    to.0.extend(GGML_MAGIC.to_le_bytes());
    for n in [
        shape.vocabulary,
        shape.audio_context,
        shape.state,
        shape.audio_heads,
        shape.audio_layers,
        shape.text_context,
        shape.state,
        shape.text_heads,
        shape.text_layers,
        shape.mels,
        1, // half precision
        shape.mels,
        MEL_BINS,
    ] {
        to.int(n)?;
    }
    to.0.extend(mel::slaney_filters(16_000, 400, shape.mels).iter().flat_map(|f| f.to_le_bytes()));
    // The published English files count the end of text among the plain tokens, the multilingual ones do not; ours are the same bytes.
    let end: &[&[u8]] = if shape.vocabulary < MULTILINGUAL_MIN_TOKENS { &[FIRST_SPECIAL.as_bytes()] } else { &[] };
    to.int(tokens.len() + end.len())?;
    for token in tokens.iter().map(Vec::as_slice).chain(end.iter().copied()) {
        to.int(token.len())?;
        to.0.extend(token);
    }
    put_encoder(&mut to, &from, &shape)?;
    put_decoder(&mut to, &from, &shape)?;
    Ok(to.0)
}

fn put_encoder(to: &mut Sink, from: &Source<'_>, s: &Shape) -> Result<(), String> {
    let n = s.state;
    let places = [s.audio_context, n];
    to.single("encoder.positional_embedding", &places, from.half("encoder/position_encodings/encodings", &places)?)?;
    for (conv, inputs) in [("conv1", s.mels), ("conv2", n)] {
        let dims = [n, inputs, 3];
        to.half(&format!("encoder.{conv}.weight"), &dims, from.half(&format!("encoder/{conv}/weight"), &dims)?)?;
        to.single(&format!("encoder.{conv}.bias"), &[n, 1], from.half(&format!("encoder/{conv}/bias"), &[n])?)?;
    }
    for i in 0..s.audio_layers {
        let (there, here) = (format!("encoder/layer_{i}"), format!("encoder.blocks.{i}"));
        put_self_attention(to, from, &there, &here, n)?;
        put_mlp(to, from, &there, &here, n)?;
    }
    put_norm(to, from, "encoder/layer_norm", "encoder.ln_post", n)
}

fn put_decoder(to: &mut Sink, from: &Source<'_>, s: &Shape) -> Result<(), String> {
    let n = s.state;
    let places = [s.text_context, n];
    to.single("decoder.positional_embedding", &places, from.half("decoder/position_encodings/encodings", &places)?)?;
    let words = [s.vocabulary, n];
    to.half("decoder.token_embedding.weight", &words, from.half("decoder/embeddings/weight", &words)?)?;
    for i in 0..s.text_layers {
        let (there, here) = (format!("decoder/layer_{i}"), format!("decoder.blocks.{i}"));
        put_self_attention(to, from, &there, &here, n)?;
        put_cross_attention(to, from, &there, &here, n)?;
        put_mlp(to, from, &there, &here, n)?;
    }
    put_norm(to, from, "decoder/layer_norm", "decoder.ln", n)
}

fn put_norm(to: &mut Sink, from: &Source<'_>, there: &str, here: &str, n: usize) -> Result<(), String> {
    to.single(&format!("{here}.weight"), &[n], from.half(&format!("{there}/gamma"), &[n])?)?;
    to.single(&format!("{here}.bias"), &[n], from.half(&format!("{there}/beta"), &[n])?)
}

/// Rows `part * n ..` of stacked projections of `n` outputs each, with as many inputs.
fn rows(data: &[u8], part: usize, n: usize, inputs: usize) -> Result<&[u8], String> {
    let bytes = n * inputs * 2;
    data.get(part * bytes..(part + 1) * bytes).ok_or_else(|| "stacked projections are too short".to_owned())
}

fn put_self_attention(to: &mut Sink, from: &Source<'_>, there: &str, here: &str, n: usize) -> Result<(), String> {
    put_norm(to, from, &format!("{there}/self_attention/layer_norm"), &format!("{here}.attn_ln"), n)?;
    let w = from.half(&format!("{there}/self_attention/linear_0/weight"), &[3 * n, n])?;
    let b = from.half(&format!("{there}/self_attention/linear_0/bias"), &[3 * n])?;
    to.half(&format!("{here}.attn.query.weight"), &[n, n], rows(w, 0, n, n)?)?;
    to.single(&format!("{here}.attn.query.bias"), &[n], rows(b, 0, n, 1)?)?;
    to.half(&format!("{here}.attn.key.weight"), &[n, n], rows(w, 1, n, n)?)?;
    to.half(&format!("{here}.attn.value.weight"), &[n, n], rows(w, 2, n, n)?)?;
    to.single(&format!("{here}.attn.value.bias"), &[n], rows(b, 2, n, 1)?)?;
    let out = from.half(&format!("{there}/self_attention/linear_1/weight"), &[n, n])?;
    to.half(&format!("{here}.attn.out.weight"), &[n, n], out)?;
    to.single(&format!("{here}.attn.out.bias"), &[n], from.half(&format!("{there}/self_attention/linear_1/bias"), &[n])?)
}

fn put_cross_attention(to: &mut Sink, from: &Source<'_>, there: &str, here: &str, n: usize) -> Result<(), String> {
    put_norm(to, from, &format!("{there}/attention/layer_norm"), &format!("{here}.cross_attn_ln"), n)?;
    let part = |i: usize, what: &str| format!("{there}/attention/linear_{i}/{what}");
    to.half(&format!("{here}.cross_attn.query.weight"), &[n, n], from.half(&part(0, "weight"), &[n, n])?)?;
    to.single(&format!("{here}.cross_attn.query.bias"), &[n], from.half(&part(0, "bias"), &[n])?)?;
    let w = from.half(&part(1, "weight"), &[2 * n, n])?;
    let b = from.half(&part(1, "bias"), &[2 * n])?;
    to.half(&format!("{here}.cross_attn.key.weight"), &[n, n], rows(w, 0, n, n)?)?;
    to.half(&format!("{here}.cross_attn.value.weight"), &[n, n], rows(w, 1, n, n)?)?;
    to.single(&format!("{here}.cross_attn.value.bias"), &[n], rows(b, 1, n, 1)?)?;
    to.half(&format!("{here}.cross_attn.out.weight"), &[n, n], from.half(&part(2, "weight"), &[n, n])?)?;
    to.single(&format!("{here}.cross_attn.out.bias"), &[n], from.half(&part(2, "bias"), &[n])?)
}

fn put_mlp(to: &mut Sink, from: &Source<'_>, there: &str, here: &str, n: usize) -> Result<(), String> {
    put_norm(to, from, &format!("{there}/ffn/layer_norm"), &format!("{here}.mlp_ln"), n)?;
    for (i, j, outputs, inputs) in [(0, 0, 4 * n, n), (1, 2, n, 4 * n)] {
        let dims = [outputs, inputs];
        to.half(&format!("{here}.mlp.{j}.weight"), &dims, from.half(&format!("{there}/ffn/linear_{i}/weight"), &dims)?)?;
        to.single(&format!("{here}.mlp.{j}.bias"), &[outputs], from.half(&format!("{there}/ffn/linear_{i}/bias"), &[outputs])?)?;
    }
    Ok(())
}

/// The plain tokens in order of their number, as bytes; special tokens are not among them (whisper.cpp adds those by itself).
fn tokens_of(file: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let text = std::str::from_utf8(file).map_err(|_| "it is not UTF-8".to_owned())?;
    let words: Vec<String> = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Array(all)) => {
            all.iter().map(|w| w.as_str().map(str::to_owned)).collect::<Option<_>>().ok_or("its list holds more than strings")?
        }
        Ok(json) => {
            let vocab = json.pointer("/model/vocab").and_then(|v| v.as_object()).ok_or("it has no model.vocab")?;
            let mut words = vec![None; vocab.len()];
            for (word, number) in vocab {
                let number = number.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or("a token has no number")?;
                *words.get_mut(number).ok_or("its token numbers have gaps")? = Some(word.clone());
            }
            words.into_iter().collect::<Option<_>>().ok_or("two tokens share a number")?
        }
        Err(_) if text.lines().nth(1000).is_some() => text.lines().map(str::to_owned).collect(),
        Err(e) => return Err(format!("it is neither JSON ({e}) nor a list of tokens, one a line")),
    };
    if words.len() > VOCABULARY_MAX_TOKENS {
        return Err(format!("it has {} tokens, no Whisper has more than {VOCABULARY_MAX_TOKENS}", words.len()));
    }
    if !words.iter().any(|w| w == FIRST_SPECIAL) {
        return Err(format!("it has no {FIRST_SPECIAL}, so it is no Whisper's"));
    }
    let bytes = byte_of_char();
    words
        .iter()
        .take_while(|w| *w != FIRST_SPECIAL)
        .map(|w| w.chars().map(|c| bytes.get(&c).copied()).collect::<Option<_>>())
        .collect::<Option<_>>()
        .ok_or_else(|| "a token is not in GPT-2's byte-level alphabet".to_owned())
}

/// GPT-2's byte-level alphabet read backwards (openai/gpt-2 `encoder.py`, `bytes_to_unicode`): printable bytes stand for
/// themselves, the others for 256, 257… in order.
fn byte_of_char() -> BTreeMap<char, u8> {
    let mut next = 256u32;
    (0..=255u8)
        .filter_map(|b| {
            let code = if matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
                u32::from(b)
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).map(|c| (c, b))
        })
        .collect()
}

#[cfg(test)]
#[path = "ggml_tests.rs"]
mod tests;

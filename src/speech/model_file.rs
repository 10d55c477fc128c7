//! Reads a ggml Whisper file before whisper.cpp does: whisper.cpp throws C++ exceptions at some malformed files, which would end the
//! process. Also cuts the vocabulary down to the tokens that reading digits needs.
//!
//! With the whole vocabulary each decoder step multiplies by 51,864 rows to use eleven of them; a walk over thousands of digit
//! strings spends most of its time so. The cut model is the same network with the other rows left out: the softmax over the digits
//! and the end is the same to the bit.

use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::SpeechError;
use super::half::singles;

/// Larger than Whisper medium in half precision.
const MODEL_MAX_BYTES: u64 = 2_000_000_000;
const GGML_MAGIC: i32 = 0x6767_6d6c;
/// Layers of tiny, base, small, medium, large: whisper.cpp knows no others.
const KNOWN_LAYERS: [i32; 5] = [4, 6, 12, 24, 32];
const EMBEDDING: &str = "decoder.token_embedding.weight";
/// Where the header's numbers end: magic and eleven.
const HEADER_NUMBERS: usize = 12;

/// A file that is whole: every count in it fits its length.
pub(super) struct ModelFile {
    bytes: Vec<u8>,
    /// Everything from the mel filters' sizes to the vocabulary's count.
    filters: Range<usize>,
    tokens: Vec<Range<usize>>,
    tensors: Vec<Tensor>,
    vocabulary: usize,
    state: usize,
    encoder: EncoderSizes,
}

#[derive(Clone, Copy)]
struct EncoderSizes {
    context: usize,
    heads: usize,
    layers: usize,
}

struct Tensor {
    name: Range<usize>,
    header: Range<usize>,
    data: Range<usize>,
    half: bool,
    /// From the slowest.
    dims: Vec<usize>,
}

impl std::fmt::Debug for ModelFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ModelFile({} bytes, {} tensors)", self.bytes.len(), self.tensors.len())
    }
}

impl ModelFile {
    /// Reads and checks.
    pub(super) fn open(path: &Path) -> Result<Self, SpeechError> {
        let corrupt = |why: String| SpeechError::ModelCorrupt { path: path.to_owned(), why };
        let length = match std::fs::metadata(path) {
            Ok(m) if m.is_file() => m.len(),
            Ok(_) => return Err(corrupt("it is no file".to_owned())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(SpeechError::ModelMissing(path.to_owned())),
            Err(e) => return Err(corrupt(e.to_string())),
        };
        if length > MODEL_MAX_BYTES {
            return Err(corrupt(format!("{length} bytes are too many")));
        }
        let bytes = std::fs::read(path).map_err(|e| corrupt(e.to_string()))?;
        Self::read(bytes).map_err(corrupt)
    }

    /// Checks the bytes.
    pub(super) fn read(bytes: Vec<u8>) -> Result<Self, String> {
        let mut at = Cursor { bytes: &bytes, at: 0 };
        if at.int()? != GGML_MAGIC {
            return Err("it is no ggml file".to_owned());
        }
        let mut numbers = [0i32; HEADER_NUMBERS - 1];
        for n in &mut numbers {
            *n = at.int()?;
        }
        let [
            vocabulary,
            audio_ctx,
            audio_state,
            audio_heads,
            audio_layers,
            text_ctx,
            text_state,
            text_heads,
            text_layers,
            mels,
            kind,
        ] = numbers;
        let sane = KNOWN_LAYERS.contains(&audio_layers)
            && (1..=32).contains(&text_layers)
            && (11..=60_000).contains(&vocabulary)
            && (2..=3_000).contains(&audio_ctx)
            && (2..=1_000).contains(&text_ctx)
            && (8..=2_000).contains(&audio_state)
            && audio_state == text_state
            && (1..=64).contains(&audio_heads)
            && (1..=64).contains(&text_heads)
            && audio_state % audio_heads == 0
            && text_state % text_heads == 0
            && mels == 80
            && kind == 1;
        if !sane {
            return Err("its header is no half-precision Whisper's".to_owned());
        }
        let filters_from = at.at;
        let (bands, bins) = (at.size()?, at.size()?);
        if (bands, bins) != (80, 201) {
            return Err("its mel filters have wrong sizes".to_owned());
        }
        at.skip(bands * bins * 4)?;
        let filters = filters_from..at.at;
        let vocabulary = usize::try_from(vocabulary).map_err(|e| e.to_string())?;
        let count = at.size()?;
        if count > vocabulary {
            return Err("it has more words than its header says".to_owned());
        }
        let mut tokens = Vec::with_capacity(count);
        for _ in 0..count {
            let length = at.size()?;
            tokens.push(at.skip(length)?);
        }
        let mut tensors = Vec::new();
        while at.at < bytes.len() {
            tensors.push(at.tensor()?);
        }
        let state = usize::try_from(text_state).map_err(|e| e.to_string())?;
        let size = |n: i32| usize::try_from(n).map_err(|e| e.to_string());
        let encoder = EncoderSizes { context: size(audio_ctx)?, heads: size(audio_heads)?, layers: size(audio_layers)? };
        let file = Self { filters, tokens, tensors, vocabulary, state, encoder, bytes };
        match file.embedding() {
            Some(t) if t.data.len() == vocabulary * state * 2 => Ok(file),
            _ => Err("its token embedding is missing or has a wrong size".to_owned()),
        }
    }

    /// The whole file, for whisper.cpp to load.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of the token with exactly this text.
    pub(super) fn token(&self, text: &str) -> Option<usize> {
        self.tokens.iter().position(|r| self.bytes.get(r.clone()) == Some(text.as_bytes()))
    }

    /// The same model with only these tokens, in this order: token `keep[i]` is token `i` there.
    pub(super) fn cut(&self, keep: &[usize]) -> Option<Vec<u8>> {
        let part = |r: &Range<usize>| self.bytes.get(r.clone());
        let count = i32::try_from(keep.len()).ok()?.to_le_bytes();
        let mut out = Vec::with_capacity(self.bytes.len().saturating_sub(self.vocabulary * self.state * 2));
        out.extend(GGML_MAGIC.to_le_bytes());
        out.extend(count);
        out.extend(part(&(8..4 * HEADER_NUMBERS))?);
        out.extend(part(&self.filters)?);
        out.extend(0i32.to_le_bytes()); // no words: nothing is read as text with this model
        for tensor in &self.tensors {
            if part(&tensor.name)? != EMBEDDING.as_bytes() {
                out.extend(part(&tensor.header)?);
                out.extend(part(&tensor.data)?);
                continue;
            }
            // rank, name's length, data type, then dimensions from the fastest: width, tokens
            let mut header = part(&tensor.header)?.to_vec();
            header.get_mut(16..20)?.copy_from_slice(&count);
            out.extend(header);
            for token in keep {
                let row = self.state * 2;
                let from = tensor.data.start + token.checked_mul(row)?;
                (*token < self.vocabulary).then_some(())?;
                out.extend(self.bytes.get(from..from + row)?);
            }
        }
        Some(out)
    }

    /// One tensor's values, if it has exactly these dimensions (from the slowest).
    pub(super) fn tensor(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>, String> {
        let tensor = self.find(name).ok_or_else(|| format!("its tensor {name} is missing"))?;
        if tensor.dims != dims {
            return Err(format!("its tensor {name} has dimensions {:?}, expected {dims:?}", tensor.dims));
        }
        let data = self.bytes.get(tensor.data.clone()).unwrap_or_default();
        let single = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
        Ok(if tensor.half { singles(data) } else { data.as_chunks::<4>().0.iter().map(single).collect() })
    }

    /// The mel filters, row by row.
    pub(super) fn mel_filters(&self, count: usize) -> Result<Vec<f32>, String> {
        // Their sizes, two numbers, come first.
        let data = self.bytes.get(self.filters.start + 8..self.filters.end).unwrap_or_default();
        let filters: Vec<f32> = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if filters.len() == count { Ok(filters) } else { Err("its mel filters have wrong sizes".to_owned()) }
    }

    /// Numbers in a state.
    pub(super) fn width(&self) -> usize {
        self.state
    }

    /// States that the encoder can see at once.
    pub(super) fn encoder_context(&self) -> usize {
        self.encoder.context
    }

    /// Heads of the encoder's attention.
    pub(super) fn encoder_heads(&self) -> usize {
        self.encoder.heads
    }

    /// Blocks of the encoder.
    pub(super) fn encoder_layers(&self) -> usize {
        self.encoder.layers
    }

    /// The whole file's sha256, in hexadecimal.
    pub(super) fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.bytes))
    }

    fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|t| self.bytes.get(t.name.clone()) == Some(name.as_bytes()))
    }

    fn embedding(&self) -> Option<&Tensor> {
        self.find(EMBEDDING)
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn skip(&mut self, n: usize) -> Result<Range<usize>, String> {
        let end = self.at.checked_add(n).filter(|e| *e <= self.bytes.len()).ok_or("it ends too early")?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn int(&mut self) -> Result<i32, String> {
        let range = self.skip(4)?;
        let four = self.bytes.get(range).and_then(|b| b.try_into().ok()).ok_or("it ends too early")?;
        Ok(i32::from_le_bytes(four))
    }

    /// A count: not negative, no more than the file has bytes.
    fn size(&mut self) -> Result<usize, String> {
        usize::try_from(self.int()?)
            .ok()
            .filter(|n| *n <= self.bytes.len())
            .ok_or_else(|| "a count in it is out of range".to_owned())
    }

    fn tensor(&mut self) -> Result<Tensor, String> {
        let from = self.at;
        let (rank, name_length, kind) = (self.size()?, self.size()?, self.int()?);
        let value_bytes = match kind {
            0 => 4usize,
            1 => 2,
            other => return Err(format!("a tensor has data type {other}")),
        };
        if !(1..=4).contains(&rank) || !(1..=128).contains(&name_length) {
            return Err("a tensor has impossible dimensions".to_owned());
        }
        let mut data_bytes = value_bytes;
        let mut dims = Vec::with_capacity(rank);
        for _ in 0..rank {
            let size = self.size()?;
            data_bytes = data_bytes.checked_mul(size).ok_or("a tensor has impossible dimensions")?;
            dims.insert(0, size);
        }
        let name = self.skip(name_length)?;
        Ok(Tensor { header: from..self.at, name, data: self.skip(data_bytes)?, half: kind == 1, dims })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file of the right form with 12 tokens, 8 wide: the embedding and one other tensor.
    fn small() -> Vec<u8> {
        let mut b = Vec::new();
        let mut put = |numbers: &[i32]| numbers.iter().for_each(|n| b.extend(n.to_le_bytes()));
        put(&[GGML_MAGIC, 12, 6, 8, 2, 4, 6, 8, 2, 4, 80, 1, 80, 201]);
        b.extend(vec![0u8; 80 * 201 * 4]);
        b.extend(2i32.to_le_bytes());
        for word in ["a", " 7"] {
            b.extend(i32::try_from(word.len()).unwrap().to_le_bytes());
            b.extend(word.bytes());
        }
        for (name, dims, kind) in [("decoder.ln.bias", vec![8], 0), (EMBEDDING, vec![8, 12], 1)] {
            for n in [dims.len(), name.len(), kind].into_iter().chain(dims.iter().copied()) {
                b.extend(i32::try_from(n).unwrap().to_le_bytes());
            }
            b.extend(name.bytes());
            let values: usize = dims.iter().product();
            if kind == 0 {
                b.extend(vec![9u8; values * 4]);
            } else {
                (0..values).for_each(|v| b.extend(u16::try_from(v / 8).unwrap().to_le_bytes()));
            }
        }
        b
    }

    #[test]
    fn the_cut_model_keeps_the_rows_asked_for_and_is_whole_itself() {
        let file = ModelFile::read(small()).unwrap();
        assert_eq!(file.token(" 7"), Some(1));
        assert_eq!(file.token("7"), None);
        let kept: Vec<usize> = vec![11, 3, 0, 1, 2, 4, 5, 6, 7, 8, 9];
        let cut = ModelFile::read(file.cut(&kept).unwrap()).unwrap();
        let rows = cut.embedding().unwrap().data.clone();
        let first: Vec<u8> = cut.bytes()[rows].chunks(16).map(|row| row[0]).collect();
        assert_eq!(first, [11, 3, 0, 1, 2, 4, 5, 6, 7, 8, 9]);
        assert!(file.cut(&[12]).is_none(), "there is no such token");
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = small();
        for cut in (0..whole.len()).step_by(61).chain(whole.len() - 40..whole.len()) {
            assert!(ModelFile::read(whole[..cut].to_vec()).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_missing_file_and_a_wrong_one_say_what_to_do() {
        let missing = ModelFile::open(Path::new("no-such-file.bin")).unwrap_err().to_string();
        assert!(missing.contains("missing") && missing.contains("voicepay models fetch"), "{missing}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.bin");
        std::fs::write(&path, b"not a model").unwrap();
        let wrong = ModelFile::open(&path).unwrap_err().to_string();
        assert!(wrong.contains("no ggml file") && wrong.contains("voicepay models fetch"), "{wrong}");
    }

    proptest! {
        #[test]
        fn changed_bytes_never_panic(changes in proptest::collection::vec((0usize..70_000, any::<u8>()), 1..6)) {
            let mut b = small();
            let n = b.len();
            for (at, value) in changes {
                b[at % n] = value;
            }
            if let Ok(file) = ModelFile::read(b) {
                let _ = file.cut(&[0, 1, 2]);
            }
        }
    }
}

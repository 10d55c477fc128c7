//! A customer's enrolled voice. The store keeps [`Template::to_bytes`] sealed; a template of another model is refused.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::embedding::{EMBEDDING_SIZE, ModelVersion};

/// The first byte of a serialised template: which recipe made it. The rest is the same in both.
const FORMAT_AS_SAID: u8 = 1;
const FORMAT_WITH_BABBLE: u8 = 2;

/// What a template was averaged over. Templates of both are scored alike; whoever enrols again gets the newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// Utterances as they were said: how this program made them before it knew [`Recipe::WithBabble`].
    AsSaid,
    /// The same, and each once more in babble.
    WithBabble,
}

/// An enrolled voice: the mean of the enrolment's centred unit embeddings, itself of length one.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Template {
    centred: Vec<f32>,
    /// Speech it was made from, in milliseconds without pauses.
    net_speech_ms: u32,
    #[zeroize(skip)]
    model: ModelVersion,
    #[zeroize(skip)]
    recipe: Recipe,
}

impl Template {
    /// `centred` must have length one.
    pub(super) fn new(centred: Vec<f32>, net_speech_ms: u32, model: ModelVersion, recipe: Recipe) -> Self {
        Self { centred, net_speech_ms, model, recipe }
    }

    pub(super) fn centred(&self) -> &[f32] {
        &self.centred
    }

    /// Which weights and centring made it.
    pub fn model(&self) -> &ModelVersion {
        &self.model
    }

    /// Speech it was made from, in milliseconds without pauses.
    pub fn net_speech_ms(&self) -> u32 {
        self.net_speech_ms
    }

    /// What it was averaged over.
    pub fn recipe(&self) -> Recipe {
        self.recipe
    }

    /// Format byte, net speech (u32), length of the model's name (u16), name, 192 × f32; all little-endian.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let name = self.model.as_str().as_bytes();
        let mut out = Zeroizing::new(Vec::with_capacity(7 + name.len() + 4 * EMBEDDING_SIZE));
        out.push(match self.recipe {
            Recipe::AsSaid => FORMAT_AS_SAID,
            Recipe::WithBabble => FORMAT_WITH_BABBLE,
        });
        out.extend_from_slice(&self.net_speech_ms.to_le_bytes());
        let name = name.get(..usize::from(u16::MAX)).unwrap_or(name);
        out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(name);
        for v in &self.centred {
            out.extend_from_slice(&v.to_le_bytes());
        }
        out
    }

    /// Reads what [`Self::to_bytes`] wrote. Whether the model fits is asked by `score`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TemplateError> {
        let (format, rest) = bytes.split_first().ok_or(TemplateError::Malformed("empty"))?;
        let recipe = match *format {
            FORMAT_AS_SAID => Recipe::AsSaid,
            FORMAT_WITH_BABBLE => Recipe::WithBabble,
            got => return Err(TemplateError::Format { got }),
        };
        let (net, rest) = rest.split_first_chunk::<4>().ok_or(TemplateError::Malformed("cut short"))?;
        let (len, rest) = rest.split_first_chunk::<2>().ok_or(TemplateError::Malformed("cut short"))?;
        let (name, rest) =
            rest.split_at_checked(usize::from(u16::from_le_bytes(*len))).ok_or(TemplateError::Malformed("cut short"))?;
        let name = std::str::from_utf8(name).map_err(|_| TemplateError::Malformed("the model's name is no text"))?;
        if rest.len() != 4 * EMBEDDING_SIZE {
            return Err(TemplateError::Malformed("not 192 numbers"));
        }
        let (numbers, _) = rest.as_chunks::<4>();
        let centred: Zeroizing<Vec<f32>> = Zeroizing::new(numbers.iter().map(|c| f32::from_le_bytes(*c)).collect());
        let length = centred.iter().map(|v| v * v).sum::<f32>().sqrt();
        if length.is_nan() || (length - 1.0).abs() > 1e-3 {
            return Err(TemplateError::Malformed("its length is not one"));
        }
        Ok(Self::new(centred.to_vec(), u32::from_le_bytes(*net), ModelVersion::new(name), recipe))
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({}, {:?}, …)", self.model, self.recipe)
    }
}

/// Why bytes are no template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Written by another version of this program.
    #[error(
        "a voice template of format {got} can't be read by this version (formats {FORMAT_AS_SAID} and {FORMAT_WITH_BABBLE}): enrol the voice again"
    )]
    Format {
        /// The format byte.
        got: u8,
    },
    /// Not what was written.
    #[error("a voice template is damaged ({0}): enrol the voice again")]
    Malformed(&'static str),
}

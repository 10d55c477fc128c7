//! PURE. Signed documents: claims as a JSON object, an Ed25519 signature over their canonical bytes, and perhaps a proof that
//! they are in the audit log.
//!
//! The canonical bytes are those of RFC 8785, for the part of JSON that claims may use: objects, lists, texts, whole numbers,
//! true, false, null. Fractions are refused, as their canonical form is hard to get right elsewhere; scores travel as texts. For
//! such claims Python's `json.dumps(claims, sort_keys=True, separators=(",", ":"), ensure_ascii=False)` gives the same bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::checkpoint::Checkpoint;
use super::keys::{PublicKey, SIGNATURE_BYTES};
use super::merkle::Hash;
use super::proof::{InclusionProof, ProofError};

/// The longest document that is read, in bytes.
pub const DOCUMENT_LIMIT_BYTES: usize = 256 * 1024;
/// Claims are objects in objects, but never this deep.
const DEPTH_LIMIT: usize = 16;
/// Whole numbers beyond 2⁵³ do not survive every JSON reader (RFC 8785 §3.2.2.3, RFC 7493 §2.2).
const NUMBER_LIMIT: i64 = 1 << 53;

/// The canonical bytes of claims. `None` if they hold what claims may not.
pub fn canonical(claims: &Value) -> Option<String> {
    let mut out = String::new();
    write(claims, &mut out, 0)?;
    Some(out)
}

fn write(value: &Value, out: &mut String, depth: usize) -> Option<()> {
    if depth > DEPTH_LIMIT {
        return None;
    }
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
        Value::Number(n) => {
            let n = n.as_i64().filter(|n| (-NUMBER_LIMIT..=NUMBER_LIMIT).contains(n))?;
            out.push_str(&n.to_string());
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out, depth + 1)?;
            }
            out.push(']');
        }
        Value::Object(map) => {
            // Sorted here, whatever order the map keeps; by UTF-16 units as the RFC says, which for ASCII names is by bytes.
            let mut names: Vec<_> = map.iter().collect();
            names.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
            out.push('{');
            for (i, (name, item)) in names.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                write(item, out, depth + 1)?;
            }
            out.push('}');
        }
    }
    Some(())
}

/// SHA-256 over canonical bytes.
pub fn digest(canonical: &str) -> Hash {
    Sha256::digest(canonical).into()
}

/// A signature with what is needed to check it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentSignature {
    /// Always `Ed25519`.
    algorithm: String,
    /// The key's name: the first eight bytes of its SHA-256, in hex. Says which key to look for, proves nothing.
    pub key: String,
    /// The signature over the canonical bytes, in base64.
    pub value: String,
}

impl DocumentSignature {
    /// From a signature that was made.
    pub fn new(key: &PublicKey, signature: &[u8; SIGNATURE_BYTES]) -> Self {
        Self::from_parts(key.id(), STANDARD.encode(signature))
    }

    /// From a key's name and a signature in base64, as a row keeps them.
    pub fn from_parts(key: String, value: String) -> Self {
        Self { algorithm: "Ed25519".into(), key, value }
    }
}

/// A document as it is handed out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedDocument {
    /// What is claimed.
    pub claims: Value,
    /// Who says so. `None`: it is older than signatures, and nobody can check it.
    pub signature: Option<DocumentSignature>,
    /// That it is in the audit log, once a checkpoint covers it.
    pub proof: Option<InclusionProof>,
}

/// What a good document shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose signature it has.
    pub signer: PublicKey,
    /// The checkpoint that its proof leads to, and who signed that; `None` without a proof.
    pub logged: Option<(Checkpoint, PublicKey)>,
}

impl SignedDocument {
    /// As a file: indented for people, and always the same bytes for the same document.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(&sorted(self)).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads a file. Its bytes must be those of [`SignedDocument::to_text`], so that none can be changed; ends of lines at its
    /// end don't count.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        if text.len() > DOCUMENT_LIMIT_BYTES {
            return Err(DocumentError::TooLong);
        }
        let document: Self = serde_json::from_str(text).map_err(|e| DocumentError::Malformed(e.to_string()))?;
        if document.to_text().trim_end() == text.trim_end_matches(['\n', '\r']) {
            Ok(document)
        } else {
            Err(DocumentError::OtherSpelling)
        }
    }

    /// Checks signature and proof with these keys alone. `kind` is what the claims must say that they are; a proof must be of the
    /// record `action` whose detail holds the SHA-256 of the claims.
    pub fn verify(&self, kind: &str, action: &str, keys: &[PublicKey]) -> Result<Verified, DocumentError> {
        let canonical = canonical(&self.claims).ok_or_else(|| DocumentError::Malformed("its claims hold a fraction".into()))?;
        if self.claims.get("type").and_then(Value::as_str) != Some(kind) {
            return Err(DocumentError::OtherKind(kind.to_owned()));
        }
        let signature = self.signature.as_ref().ok_or(DocumentError::Unsigned)?;
        if signature.algorithm != "Ed25519" {
            return Err(DocumentError::Malformed(format!("its signature is by {}, not Ed25519", signature.algorithm)));
        }
        let bytes = STANDARD.decode(&signature.value).map_err(|_| DocumentError::WrongSignature)?;
        let named = keys.iter().find(|key| key.id() == signature.key);
        let signer = *named.ok_or_else(|| DocumentError::UnknownKey(signature.key.clone()))?;
        if !signer.verifies(canonical.as_bytes(), &bytes) {
            return Err(DocumentError::WrongSignature);
        }
        let Some(proof) = &self.proof else { return Ok(Verified { signer, logged: None }) };
        let (record, checkpoint, by) = proof.verify(keys)?;
        let told = serde_json::from_str::<Value>(&record.detail).ok();
        let told = told.as_ref().and_then(|detail| detail.get("sha256")).and_then(Value::as_str);
        if record.action != action || told != Some(hex::encode(digest(&canonical)).as_str()) {
            return Err(DocumentError::OtherRecord);
        }
        Ok(Verified { signer, logged: Some((checkpoint, by)) })
    }
}

/// The document with the names in its claims sorted, so that its text does not hang on how maps are kept.
fn sorted(document: &SignedDocument) -> SignedDocument {
    let claims = canonical(&document.claims).and_then(|text| serde_json::from_str(&text).ok());
    SignedDocument { claims: claims.unwrap_or_else(|| document.claims.clone()), ..document.clone() }
}

/// Why a document proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Larger than any document.
    #[error("it is larger than {DOCUMENT_LIMIT_BYTES} bytes")]
    TooLong,
    /// Not JSON, or not of this shape.
    #[error("it is no signed document: {0}")]
    Malformed(String),
    /// It means something, but not byte for byte.
    #[error("it is not spelt as it was handed out: bytes were altered")]
    OtherSpelling,
    /// Something else was signed.
    #[error("it is no {0}")]
    OtherKind(String),
    /// From before signatures.
    #[error("it is not signed: it was issued before receipts were signed")]
    Unsigned,
    /// None of the keys.
    #[error("it was signed with the key {0}, which is not among the given ones")]
    UnknownKey(String),
    /// Altered.
    #[error("its signature is wrong: the document was altered, or another key signed it")]
    WrongSignature,
    /// The proof does not hold.
    #[error("its proof is not good: {0}")]
    Proof(#[from] ProofError),
    /// The proof is of something else.
    #[error("its proof is of another record")]
    OtherRecord,
}

#[cfg(test)]
mod tests;

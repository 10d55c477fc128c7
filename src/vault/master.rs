//! Where the master key comes from: the environment, else a file that only its owner may read.

use std::io::Write;
use std::path::Path;

use zeroize::Zeroizing;

use crate::clock::Entropy;

use super::{VaultConfig, VaultError};

/// The environment variable that holds the master key; it comes before the file.
pub const MASTER_KEY_ENV: &str = "VOICEPAY_MASTER_KEY";

pub(super) fn load(cfg: &VaultConfig, may_create: bool, entropy: &dyn Entropy) -> Result<Zeroizing<[u8; 32]>, VaultError> {
    if let Ok(text) = std::env::var(MASTER_KEY_ENV) {
        let text = Zeroizing::new(text);
        return parse(&text).ok_or_else(|| VaultError::Malformed(format!("the environment variable {MASTER_KEY_ENV}")));
    }
    let path = &cfg.master_key_file;
    let io = |source| VaultError::Io { path: path.clone(), source };
    match std::fs::read(path) {
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            refuse_if_others_can_read(path)?;
            let malformed = || VaultError::Malformed(path.display().to_string());
            let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
            parse(text).ok_or_else(malformed)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && may_create => create(path, entropy).map_err(io),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(VaultError::Missing(path.clone())),
        Err(e) => Err(io(e)),
    }
}

fn create(path: &Path, entropy: &dyn Entropy) -> std::io::Result<Zeroizing<[u8; 32]>> {
    let key = Zeroizing::new(entropy.bytes::<32>());
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(Zeroizing::new(hex::encode(*key)).as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    tracing::warn!(
        file = %path.display(),
        "made a new master key: back this file up apart from the database; without it no card can be charged"
    );
    Ok(key)
}

fn refuse_if_others_can_read(path: &Path) -> Result<(), VaultError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let meta = std::fs::metadata(path).map_err(|source| VaultError::Io { path: path.to_owned(), source })?;
        if meta.permissions().mode() & 0o077 != 0 {
            return Err(VaultError::Permissions(path.to_owned()));
        }
    }
    Ok(())
}

/// 64 hex digits, or base64 of 32 bytes (RFC 4648, either alphabet, padding optional).
fn parse(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let text = text.trim();
    let bytes = if text.len() == 64 { Zeroizing::new(hex::decode(text).ok()?) } else { base64(text)? };
    let key: [u8; 32] = bytes.as_slice().try_into().ok()?;
    Some(Zeroizing::new(key))
}

/// Small enough not to need a crate for it.
fn base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(33));
    let (mut held, mut bits) = (0u32, 0u32);
    for b in text.trim_end_matches('=').bytes() {
        let six = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        if out.len() > 32 {
            return None;
        }
        held = (held << 6) | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from((held >> bits) & 0xff).ok()?);
        }
        held &= (1 << bits) - 1;
    }
    (held == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_and_base64_name_the_same_key() {
        let hex_text = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";
        let base64_text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=";
        assert_eq!(parse(hex_text).unwrap(), parse(base64_text).unwrap());
        assert_eq!(parse(base64_text.trim_end_matches('=')).unwrap()[31], 0xff);
        for bad in ["", "00", &hex_text[..62], "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv9AAAA=", "????"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}

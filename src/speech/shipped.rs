//! The digit head that this program was built with.

/// `models/digits/head.safetensors`, trained by scripts/digit-head; `head.json` beside it says from what.
pub(super) const HEAD: &[u8] = include_bytes!("../../models/digits/head.safetensors");

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::super::head::Head;
    use super::HEAD;

    /// As the reader is told: small, the file that its record names, and for an encoder that the manifest pins.
    #[test]
    fn the_shipped_head_is_the_one_that_its_record_names() {
        assert!(HEAD.len() < 4_000_000);
        let record: serde_json::Value = serde_json::from_str(include_str!("../../models/digits/head.json")).unwrap();
        assert_eq!(record["sha256"], hex::encode(Sha256::digest(HEAD)));
        let head = Head::read(HEAD).unwrap();
        assert_eq!(record["encoder"]["sha256"], head.encoder.1);
        assert!(include_str!("../../models/manifest.toml").contains(&head.encoder.1));
    }

    #[test]
    fn damaged_heads_are_refused_and_never_panic() {
        for cut in (0..HEAD.len()).step_by(HEAD.len() / 40) {
            assert!(Head::read(&HEAD[..cut]).is_err(), "{cut}");
        }
        let length = usize::try_from(u64::from_le_bytes(HEAD[..8].try_into().unwrap())).unwrap();
        for at in (8..8 + length).step_by(7) {
            let mut bad = HEAD.to_vec();
            bad[at] ^= 0x15;
            let _either_way = Head::read(&bad);
        }
        let other = String::from_utf8_lossy(&HEAD[8..8 + length]).replace("voicepay-digit-head/1", "voicepay-digit-head/2");
        let mut file = u64::try_from(other.len()).unwrap().to_le_bytes().to_vec();
        file.extend(other.as_bytes());
        file.extend(&HEAD[8 + length..]);
        assert!(Head::read(&file).unwrap_err().contains("voicepay-digit-head/2"));
    }
}

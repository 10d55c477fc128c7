//! The digit heads that this program was built with.

/// Trained by scripts/digit-head, with the names that errors call them; the `.json` beside each says from what. The product of both is what is judged.
pub(super) const HEADS: [(&str, &[u8]); 2] = [
    ("models/digits/base.safetensors", include_bytes!("../../models/digits/base.safetensors")),
    ("models/digits/tiny.en.safetensors", include_bytes!("../../models/digits/tiny.en.safetensors")),
];

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::super::head::Head;
    use super::HEADS;

    /// As the reader is told: small, the file that its record names, and for an encoder that the manifest pins.
    #[test]
    fn the_shipped_heads_are_those_that_their_records_name() {
        let records = [include_str!("../../models/digits/base.json"), include_str!("../../models/digits/tiny.en.json")];
        for ((name, bytes), record) in HEADS.iter().zip(records) {
            assert!(bytes.len() < 4_000_000, "{name}");
            let record: serde_json::Value = serde_json::from_str(record).unwrap();
            assert_eq!(record["sha256"], hex::encode(Sha256::digest(bytes)), "{name}");
            let head = Head::read(bytes).unwrap();
            assert_eq!(record["encoder"]["sha256"], head.encoder.1, "{name}");
            assert!(include_str!("../../models/manifest.toml").contains(&head.encoder.1), "{name}");
        }
    }

    #[test]
    fn damaged_heads_are_refused_and_never_panic() {
        let head = HEADS[0].1;
        for cut in (0..head.len()).step_by(head.len() / 40) {
            assert!(Head::read(&head[..cut]).is_err(), "{cut}");
        }
        let length = usize::try_from(u64::from_le_bytes(head[..8].try_into().unwrap())).unwrap();
        for at in (8..8 + length).step_by(7) {
            let mut bad = head.to_vec();
            bad[at] ^= 0x15;
            let _either_way = Head::read(&bad);
        }
        let other = String::from_utf8_lossy(&head[8..8 + length]).replace("voicepay-digit-head/1", "voicepay-digit-head/2");
        let mut file = u64::try_from(other.len()).unwrap().to_le_bytes().to_vec();
        file.extend(other.as_bytes());
        file.extend(&head[8 + length..]);
        assert!(Head::read(&file).unwrap_err().contains("voicepay-digit-head/2"));
    }
}

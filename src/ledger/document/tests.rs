//! Documents with a signature and a proof: whichever byte is changed, they prove nothing any more.

use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;
use crate::clock::Timestamp;
use crate::ledger::chain::{Chain, LogId, Record};
use crate::ledger::export::SealedRecord;
use crate::ledger::merkle::{Parts, leaf_hash};

const KIND: &str = "test/1";
const ACTION: &str = "test.issued";

fn pair(seed: u8) -> (Ed25519KeyPair, PublicKey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let key = PublicKey::new(pair.public_key().as_ref().try_into().unwrap());
    (pair, key)
}

fn document() -> SignedDocument {
    let claims =
        json!({ "type": KIND, "payee": "Wässer \"Works\"\n", "amount": { "minor": 1990, "currency": "USD" }, "llr": "4.25" });
    let (pair, key) = pair(3);
    let text = canonical(&claims).unwrap();
    let signature = DocumentSignature::new(&key, &pair.sign(text.as_bytes()).as_ref().try_into().unwrap());
    let mut chain = Chain::new(LogId::parse(&"7".repeat(32)).unwrap());
    let (mut parts, mut found) = (Parts::default(), None);
    for n in 0..11 {
        let detail = if n == 5 { json!({ "sha256": hex::encode(digest(&text)) }).to_string() } else { "{}".into() };
        let (action, subject) = (ACTION.to_owned(), "rcp_1".to_owned());
        let record =
            Record { seq: n + 1, id: format!("aud_{n}"), at: Timestamp(n), actor: "books".into(), action, subject, detail };
        let previous = *chain.head();
        let link = chain.append(&record);
        parts.leaves.entry(0).or_default().push(leaf_hash(&link.hash));
        if n == 5 {
            found = Some((SealedRecord { position: link.position, record, hash: link.hash }, previous));
        }
    }
    parts.size = chain.size();
    let note = Checkpoint::of(&chain, Timestamp(9)).sign(&key, |b| pair.sign(b).as_ref().try_into().unwrap());
    let (sealed, previous) = found.unwrap();
    let proof = InclusionProof::new(&sealed, &previous, &parts.inclusion(5).unwrap(), note);
    SignedDocument { claims, signature: Some(signature), proof: Some(proof) }
}

fn verify(text: &str, keys: &[PublicKey]) -> Result<Verified, DocumentError> {
    SignedDocument::parse(text)?.verify(KIND, ACTION, keys)
}

#[test]
fn canonical_bytes_are_those_of_rfc_8785() {
    // The texts and literals of RFC 8785 §3.2.2, without its fractions; §3.2.3 for the order of names.
    let value: Value = serde_json::from_str(
        r#"{"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false],"numbers":[1,-2,0],
            "\u20ac":"Euro Sign","\r":"Carriage Return",
            "\ufb33":"Hebrew","1":"One","\ud83d\ude00":"Emoji","\u0080":"Control","\u00f6":"Latin"}"#,
    )
    .unwrap();
    let expected = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"literals\":[null,true,false],\"numbers\":[1,-2,0],\
                    \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\",\"\u{80}\":\"Control\",\"ö\":\"Latin\",\"€\":\"Euro Sign\",\
                    \"😀\":\"Emoji\",\"\u{fb33}\":\"Hebrew\"}";
    assert_eq!(canonical(&value).unwrap(), expected);
    assert_eq!(canonical(&json!({ "a": 1.5 })), None);
    assert_eq!(canonical(&json!(i64::MAX)), None);
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(canonical(&deep), None);
}

#[test]
fn a_document_is_good_with_its_key_alone() {
    let text = document().to_text();
    let good = verify(&text, &[pair(9).1, pair(3).1]).unwrap();
    assert_eq!(good.signer, pair(3).1);
    assert_eq!(good.logged.unwrap().0.size, 11);
    assert!(matches!(verify(&text, &[pair(9).1]), Err(DocumentError::UnknownKey(_))));
    let unsigned = SignedDocument { signature: None, ..document() };
    assert_eq!(verify(&unsigned.to_text(), &[pair(3).1]).unwrap_err(), DocumentError::Unsigned);
    assert_eq!(document().verify("other/1", ACTION, &[pair(3).1]).unwrap_err(), DocumentError::OtherKind("other/1".into()));
    // A true proof of something else is no proof.
    assert_eq!(document().verify(KIND, "other", &[pair(3).1]).unwrap_err(), DocumentError::OtherRecord);
    assert_eq!(verify("{}", &[]).unwrap_err().to_string().get(..24), Some("it is no signed document"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    #[test]
    fn any_changed_byte_is_refused(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = document().to_text().into_bytes();
        let at = at.index(bytes.len() - 1); // the last byte ends the last line
        bytes[at] ^= 1 << bit;
        if let Ok(text) = String::from_utf8(bytes) {
            prop_assert!(verify(&text, &[pair(3).1]).is_err(), "byte {}: {}", at, text);
        }
    }
}

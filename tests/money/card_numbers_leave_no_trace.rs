//! A canary card number is stored, charged and refused with every log line switched on; then every file, log and output is searched for it.

use std::path::Path;

use super::support::{House, child, told_dir};
use voicepay::secret::{Pan, luhn_valid};
use voicepay::telemetry::{self, LogFormat};

/// Fifteen digits that occur nowhere else; the check digit is added.
const CANARY: [u8; 15] = [4, 9, 2, 9, 1, 3, 5, 7, 2, 4, 6, 8, 0, 1, 3];

/// The canary's digits.
pub fn canary() -> Vec<u8> {
    let mut digits = CANARY.to_vec();
    let check = (0..10).find(|d| luhn_valid(&[&CANARY[..], &[*d]].concat())).unwrap();
    digits.push(check);
    digits
}

/// The ways in which it could stand somewhere: plain, grouped, as bytes 0 to 9, in hex of its ASCII, and its telling middle alone.
fn shapes() -> Vec<Vec<u8>> {
    let digits = canary();
    let plain: String = digits.iter().map(|d| char::from(b'0' + d)).collect();
    let grouped = |by: &str| plain.as_bytes().chunks(4).map(|c| std::str::from_utf8(c).unwrap()).collect::<Vec<_>>().join(by);
    let comma = digits.iter().map(u8::to_string).collect::<Vec<_>>();
    let texts = [
        plain.clone(),
        grouped(" "),
        grouped("-"),
        plain[..12].to_owned(),
        comma.join(","),
        comma.join(", "),
        comma.join(" "),
        hex(plain.as_bytes()),
    ];
    texts.into_iter().map(String::into_bytes).chain([digits]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Fails if the canary is in `bytes`.
pub fn assert_no_canary(bytes: &[u8], place: &str) {
    for shape in shapes() {
        assert!(!bytes.windows(shape.len()).any(|w| w == shape), "a card number stands in {place}");
    }
}

/// Fails if the canary is in any file below `dir`.
pub fn assert_no_canary_below(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_canary_below(&path);
        } else {
            assert_no_canary(&std::fs::read(&path).unwrap(), &path.display().to_string());
        }
    }
}

#[tokio::test]
#[ignore = "run as a child process by the test below"]
async fn child_stores_and_charges_the_canary() {
    let Some(dir) = told_dir() else { return };
    telemetry::init(LogFormat::Json, "trace");
    let number: String = canary().iter().map(|d| char::from(b'0' + d)).collect();
    let house = House::open(&dir).await;
    let order = house.furnish(&number).await;
    println!("{order:?} {:?} {house:?}", Pan::parse(&number));
    println!("{:?}", house.store.cards_of(&order.customer).await.unwrap());
    let intent = house.processor.submit(order.clone()).await.unwrap();
    house.finish_everything().await;
    println!("{:?}", house.store.payment(&intent).await.unwrap());
    // Errors, too: a sealed number in a row that it was not sealed for, a number with a wrong digit, a second card of that number.
    let card = house.store.card(&order.card).await.unwrap().unwrap();
    let other = voicepay::ids::CardId::fresh(&*house.entropy);
    println!("{}", house.vault.unseal_card(&other, &order.customer, &card.sealed).unwrap_err());
    println!("{:?}", Pan::parse(&format!("{}0", &number[..15])));
    let twin = voicepay::store::CardRecord { id: other, ..card };
    println!("{}", house.store.add_card(&twin, &house.audit_row()).await.unwrap_err());
}

#[tokio::test]
async fn a_charged_card_number_is_in_no_file_log_or_output() {
    let dir = tempfile::tempdir().unwrap();
    let name = "card_numbers_leave_no_trace::child_stores_and_charges_the_canary";
    let ended = child(name, dir.path(), &[("VOICEPAY_LOG", "trace")], None);
    assert!(ended.output.contains("attempt recorded"), "the logs were captured:\n{}", ended.output);
    assert_no_canary(ended.output.as_bytes(), "logs or output");
    let journal = std::fs::read_to_string(dir.path().join("bank.jsonl")).unwrap();
    assert!(journal.contains("\"did\":\"charged\""), "it was charged: {journal}");
    assert_no_canary_below(dir.path());
}

#[test]
fn the_search_finds_a_canary_where_there_is_one() {
    let text: String = canary().chunks(4).map(|c| c.iter().map(|d| char::from(b'0' + d)).collect::<String>() + " ").collect();
    let found = std::panic::catch_unwind(|| assert_no_canary(format!("pan={text}").as_bytes(), "here"));
    assert!(found.is_err());
}

//! The codec against hand-made bytes, against itself, and against rubbish; what is said for each operation and understood of each
//! answer.

use proptest::prelude::*;
use time::UtcOffset;

use super::answers::{judge, judge_reversal};
use super::codec::{CodecError, decode, encode};
use super::config::LengthPrefix;
use super::frame::{FrameError, Framer, Framing, MESSAGE_LIMIT_BYTES};
use super::message::{Message, Mti};
use super::requests::{self, ComposeError, Terms};
use super::spec::{DEFAULT_SPEC, FieldSpec, Format, Length, ReversalVerdict, Spec, Verdict};
use crate::clock::Timestamp;
use crate::gateway::{CardData, GatewayRequest, Original};
use crate::money::{Currency, Money};
use crate::payment::{BankWord, DeclineReason, GatewayKey, Operation};
use crate::secret::Pan;

/// 2026-11-22T16:33:21Z, day 326 of its year.
const AT: Timestamp = Timestamp(1_795_365_201_000);

fn spec() -> Spec {
    Spec::built_in().unwrap()
}

/// The built-in fields in BCD, with hexadecimal bitmaps and lengths in BCD.
fn bcd() -> Spec {
    let text = DEFAULT_SPEC.replacen("\nencoding = \"ascii\"", "\nencoding = \"bcd\"", 1);
    let text = text.replace("length_encoding = \"ascii\"", "length_encoding = \"bcd\"");
    let text = text.replace("mti_encoding = \"ascii\"", "mti_encoding = \"bcd\"").replace("\"binary\"", "\"hex\"");
    Spec::parse(&text).unwrap()
}

fn ebcdic() -> Spec {
    let text = DEFAULT_SPEC.replacen("\nencoding = \"ascii\"", "\nencoding = \"ebcdic\"", 1);
    let text = text.replace("length_encoding = \"ascii\"", "length_encoding = \"binary\"");
    Spec::parse(&text.replace("mti_encoding = \"ascii\"", "mti_encoding = \"ebcdic\"")).unwrap()
}

fn terms() -> Terms {
    Terms {
        terminal_id: "VOICE001".into(),
        merchant_id: "MERCHANT7".into(),
        acquirer_id: "123456".into(),
        local: UtcOffset::from_hms(-5, 0, 0).unwrap(),
    }
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::Usd).unwrap()
}

fn request(operation: Operation) -> GatewayRequest {
    let needs = !matches!(operation, Operation::Charge | Operation::Authorise);
    let original = needs.then(|| Original {
        operation: Operation::Authorise,
        our_reference: "att_1".into(),
        number: 41,
        prepared_at: Timestamp(AT.0 - 3_600_000),
        amount: usd(1999),
        gateway_reference: "632615000041/A1B2".into(),
    });
    GatewayRequest {
        operation,
        our_reference: "att_2".into(),
        request: "req_1".into(),
        number: 42,
        prepared_at: AT,
        idempotency_key: GatewayKey("k".into()),
        amount: usd(1999),
        card: Some(CardData { pan: Pan::parse("4111111111111111").unwrap(), expiry: Some("09/28".parse().unwrap()) }),
        original,
        statement: "Café Grün".into(),
    }
}

fn ask(operation: Operation) -> Message {
    requests::ask(&spec(), &terms(), &request(operation)).unwrap()
}

fn text(message: &Message, n: u8) -> String {
    message.text(n).unwrap_or_default().to_owned()
}

/// What an approving host says.
fn answer(question: &Message, code: &str) -> Message {
    let mut a = Message::new(question.mti.answer().unwrap());
    for n in [3, 4, 7, 11, 37, 41, 49] {
        a.set(n, question.get(n).unwrap());
    }
    a.set(38, *b"A1B2C3");
    a.set(39, code);
    a
}

#[test]
fn a_charge_is_these_bytes() {
    let bytes = encode(&spec(), &ask(Operation::Charge)).unwrap();
    let expected = [
        &b"0200"[..],
        &[0x72, 0x3c, 0x04, 0x81, 0x08, 0xe0, 0x80, 0x00],
        b"164111111111111111",
        b"000000",
        b"000000001999",
        b"1122163321",
        b"000042",
        b"113321",
        b"1122",
        b"2809",
        b"012",
        b"08",
        b"06123456",
        b"632616000042",
        b"VOICE001",
        b"MERCHANT7      ",
        b"Caf. Gr.n                               ",
        b"840",
    ]
    .concat();
    assert_eq!(bytes.as_slice(), expected, "{:?}", String::from_utf8_lossy(&bytes));
}

#[test]
fn each_operation_says_what_it_is_about() {
    let original = "01000000411122153321000001234560000000000\u{30}";
    for (operation, mti, code, refers) in [
        (Operation::Charge, "0200", "000000", false),
        (Operation::Authorise, "0100", "000000", false),
        (Operation::Capture, "0220", "000000", true),
        (Operation::Void, "0400", "000000", true),
        (Operation::Refund, "0200", "200000", true),
    ] {
        let m = ask(operation);
        assert_eq!((m.mti.to_string().as_str(), text(&m, 3).as_str()), (mti, code), "{operation:?}");
        assert_eq!(m, ask(operation), "the same request, the same message");
        assert_eq!((text(&m, 11).as_str(), text(&m, 22).as_str(), text(&m, 25).as_str()), ("000042", "012", "08"));
        let (retrieval, data) = if refers { ("632615000041", original) } else { ("632616000042", "") };
        assert_eq!((text(&m, 37).as_str(), text(&m, 90).as_str()), (retrieval, data), "{operation:?}");
    }
    assert_eq!(text(&ask(Operation::Capture), 38), "A1B2  ");
    assert_eq!(text(&ask(Operation::Void), 38), "A1B2  ");
}

#[test]
fn a_reversal_goes_under_the_number_of_what_it_takes_back() {
    for (operation, original, retrieval, code) in [
        (Operation::Charge, "0200000042", "632616000042", "000000"),
        (Operation::Authorise, "0100000042", "632616000042", "000000"),
        (Operation::Refund, "0200000042", "632615000041", "200000"),
    ] {
        let (asked, taken) = (ask(operation), requests::reverse(&spec(), &terms(), &request(operation)).unwrap());
        assert_eq!((taken.mti.to_string().as_str(), text(&taken, 11).as_str()), ("0400", "000042"));
        assert_eq!((taken.get(37), taken.get(7), taken.get(4)), (asked.get(37), asked.get(7), asked.get(4)));
        assert_eq!((text(&taken, 37).as_str(), text(&taken, 3).as_str()), (retrieval, code));
        assert_eq!(&text(&taken, 90)[..20], format!("{original}1122163321"));
    }
    let gone = GatewayRequest { card: None, ..request(Operation::Charge) };
    let without = requests::reverse(&spec(), &terms(), &gone).unwrap();
    assert_eq!(without.get(2), None, "a card that was erased since can still be given its money back");
}

#[test]
fn numbers_begin_again_and_never_are_nought() {
    for (number, stan) in [(1, "000001"), (999_999, "999999"), (1_000_000, "000001"), (0, "000001")] {
        assert_eq!(requests::stan(number), stan);
    }
    assert_eq!(requests::retrieval_reference(Timestamp(1_704_067_200_000), 7), "400100000007");
}

#[test]
fn what_can_not_be_said_is_refused() {
    let huge = GatewayRequest { amount: usd(1_000_000_000_000), ..request(Operation::Charge) };
    assert_eq!(requests::ask(&spec(), &terms(), &huge).unwrap_err(), ComposeError::Amount);
    let alone = GatewayRequest { original: None, ..request(Operation::Refund) };
    assert!(matches!(requests::ask(&spec(), &terms(), &alone).unwrap_err(), ComposeError::NoOriginal("refund")));
}

#[test]
fn only_a_clear_yes_is_a_yes() {
    let (spec, r, asked) = (spec(), request(Operation::Charge), ask(Operation::Charge));
    let of = |change: &dyn Fn(&mut Message)| {
        let mut a = answer(&asked, "00");
        change(&mut a);
        judge(&spec, &r, &a)
    };
    let charged = |money| BankWord::Approved { charged: money, gateway_reference: "632616000042/A1B2C3".into() };
    assert_eq!(of(&|_| {}), charged(usd(1999)));
    assert_eq!(of(&|a| a.set(4, *b"000000002000")), charged(usd(2000)));
    assert_eq!(of(&|a| a.set(49, *b"978")), charged(Money::new(1999, Currency::Eur).unwrap()));
    let partly = of(&|a| {
        a.set(39, *b"10");
        a.set(4, *b"000000001000");
    });
    assert_eq!(partly, charged(usd(1000)), "the core makes a conflict of it");
    assert_eq!(of(&|a| a.set(49, *b"756")), BankWord::Silence, "a currency that we can't name");
    assert_eq!(of(&|a| a.set(4, *b"000000000000")), BankWord::Silence);
    let mut bare = Message::new(asked.mti.answer().unwrap());
    assert_eq!(judge(&spec, &r, &bare), BankWord::Silence, "no response code");
    bare.set(39, *b"00");
    assert_eq!(judge(&spec, &r, &bare), BankWord::Silence, "no amount");
    let lenient = Spec::parse(&DEFAULT_SPEC.replace("amounts_echoed = true", "amounts_echoed = false")).unwrap();
    assert!(matches!(judge(&lenient, &r, &bare), BankWord::Approved { charged, .. } if charged == usd(1999)));
    bare.set(39, *b"10");
    assert_eq!(judge(&lenient, &r, &bare), BankWord::Silence, "a part, but nobody says which");
}

#[test]
fn response_codes_are_read_from_the_table() {
    for (code, reason) in [
        ("01", DeclineReason::NeedsAuthentication),
        ("03", DeclineReason::Other),
        ("04", DeclineReason::LostOrStolen),
        ("05", DeclineReason::DoNotHonour),
        ("07", DeclineReason::SuspectedFraud),
        ("12", DeclineReason::NotPermitted),
        ("13", DeclineReason::InvalidAmount),
        ("14", DeclineReason::UnknownCard),
        ("41", DeclineReason::LostOrStolen),
        ("43", DeclineReason::LostOrStolen),
        ("51", DeclineReason::InsufficientFunds),
        ("54", DeclineReason::ExpiredCard),
        ("57", DeclineReason::NotPermitted),
        ("61", DeclineReason::LimitExceeded),
        ("65", DeclineReason::LimitExceeded),
        ("91", DeclineReason::IssuerUnavailable),
        ("96", DeclineReason::IssuerUnavailable),
    ] {
        assert_eq!(spec().verdict(code), Verdict::Declined(reason), "{code}");
        let said = judge(&spec(), &request(Operation::Charge), &answer(&ask(Operation::Charge), code));
        assert_eq!(said, BankWord::Declined(reason));
    }
    for unclear in ["94", "68", "ZZ", "  "] {
        assert_eq!(spec().verdict(unclear), Verdict::Unclear, "{unclear}");
    }
    assert_eq!(spec().verdict("09"), Verdict::StillWorking);
    let of = |code| judge_reversal(&spec(), &answer(&ask(Operation::Void), code));
    assert_eq!(of("00"), Some(ReversalVerdict::Acknowledged));
    assert_eq!(of("25"), Some(ReversalVerdict::NoOriginal));
    assert_eq!(of("96"), None, "it is repeated");
    let void = |code| judge(&spec(), &request(Operation::Void), &answer(&ask(Operation::Void), code));
    assert!(matches!(void("00"), BankWord::Approved { charged, .. } if charged == usd(1999)));
    assert_eq!(void("25"), BankWord::Declined(DeclineReason::Other));
    assert_eq!(void("91"), BankWord::Silence, "a void that was not taken is said again");
}

#[test]
fn what_does_not_fit_names_its_field_and_nothing_of_its_content() {
    let spec = spec();
    let good = encode(&spec, &ask(Operation::Charge)).unwrap();
    let told = |bytes: &[u8]| decode(&spec, bytes).unwrap_err().to_string();
    assert_eq!(told(&good[..30]), "the message ends within field 3 (processing code): 6 bytes are needed, 0 are left");
    assert_eq!(told(&good[..20]), "the message ends within field 2 (primary account number): 16 bytes are needed, 6 are left");
    assert_eq!(told(&[&good[..], b"xyz"].concat()), "3 bytes follow the last field of the message");
    assert_eq!(told(b""), "the message ends within message type: 4 bytes are needed, 0 are left");
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        told(&bytes)
    };
    assert_eq!(changed(0, b'x'), "the message type is not four digits");
    assert!(changed(4, 0x73).contains("field 8 is not defined"));
    assert_eq!(changed(12, b'2'), "field 2 (primary account number) has a length of 26, but takes 19");
    assert_eq!(changed(12, b'+'), "the length of field 2 (primary account number) is not digits");
    let letter = changed(20, b'x');
    assert!(letter.starts_with("field 2 (primary account number) holds") && !letter.contains("4111"), "{letter}");
    let mut m = ask(Operation::Charge);
    m.set(3, *b"1");
    assert!(matches!(encode(&spec, &m), Err(CodecError::Length { has: 1, takes: 6, .. })));
    m.set(3, *b"00000x");
    assert!(matches!(encode(&spec, &m), Err(CodecError::Content { .. })));
    m.set(3, *b"000000");
    m.set(65, *b"1");
    assert_eq!(encode(&spec, &m), Err(CodecError::UnknownField { field: 65 }));
}

#[test]
fn odd_counts_of_digits_are_padded_as_each_format_has_it() {
    let spec = bcd();
    let mut m = Message::new("0200".parse().unwrap());
    m.set(2, *b"123456789012345");
    m.set(35, *b"4111111111111111=28091");
    m.set(49, *b"840");
    let bytes = encode(&spec, &m).unwrap();
    let head = [&[0x02, 0x00][..], b"4000000020008000", &[0x15, 0x01, 0x23, 0x45]].concat();
    assert_eq!(bytes[..head.len()], head);
    assert!(bytes.ends_with(&[0x08, 0x40]));
    assert_eq!(decode(&spec, &bytes).unwrap(), m);
    let mut wrong = bytes.to_vec();
    let at = wrong.len() - 2;
    wrong[at] = 0x18;
    assert!(matches!(decode(&spec, &wrong), Err(CodecError::Content { .. })), "the padding is part of what must fit");
}

#[test]
fn traces_show_four_digits_of_a_card_and_nothing_of_a_track() {
    let spec = spec();
    let mut m = ask(Operation::Charge);
    m.set(35, *b"4111111111111111=2809");
    m.set(52, [9; 8]);
    let shown = m.shown(&spec).to_string();
    assert!(shown.starts_with("0200 2=…1111 3=000000 4=000000001999"), "{shown}");
    assert!(!shown.contains("411111") && !shown.contains("2809") && shown.contains("35=(hidden) "), "{shown}");
    assert!(!format!("{m:?}").contains("4111") && !format!("{:?}", m.shown(&spec)).contains("411111"));
    for (field, show) in [("35 = { name = \"track 2 data\",", "last4"), ("2 = { name = \"primary account number\",", "plain")] {
        let text = DEFAULT_SPEC.replace(", show = \"last4\" }", " }").replace(field, &format!("{field} show = \"{show}\","));
        assert!(Spec::parse(&text).unwrap_err().to_string().contains("may not be shown so"), "{field}");
    }
}

#[test]
fn a_dialect_that_can_not_work_names_its_key() {
    let told = |from: &str, to: &str| {
        assert!(DEFAULT_SPEC.contains(from), "{from}");
        Spec::parse(&DEFAULT_SPEC.replacen(from, to, 1)).unwrap_err().to_string()
    };
    assert!(told("2 = { name", "200 = { name").contains("`fields.200`"));
    assert!(told("max = 19", "max = 100").contains("`fields.2`: max must be 1 to 99"));
    assert!(told("mti = \"0100\"", "mti = \"100\"").contains("`messages.authorise.mti`"));
    assert!(told("fields = [2, 3,", "fields = [2, 48, 3,").contains("`messages.authorise.fields`: field 48 is none"));
    assert!(told("set = { 22 = \"012\", 25", "set = { 121 = \"012\", 25").contains("`messages.authorise.set.121`"));
    assert!(told("05 = \"do_not_honour\"", "05 = \"no\"").contains("`responses.05`"));
    assert!(told("echoed", "ecoed").contains("amounts_ecoed"));
    assert!(told("39 = { name = \"response code\"", "8 = { name = \"response code\"").contains("`fields.39`: is missing"));
}

#[test]
fn what_a_dialect_can_not_write_is_told_before_anything_is_asked() {
    let told = |from: &str, to: &str| {
        let spec = Spec::parse(&DEFAULT_SPEC.replacen(from, to, 1)).unwrap();
        requests::rehearse(&spec, &terms()).map_err(|(what, error)| format!("{what}: {error}"))
    };
    assert_eq!(told("name", "name"), Ok(()));
    assert_eq!(
        told("set = { 22 = \"012\", 25", "set = { 22 = \"12\", 25").unwrap_err(),
        "authorise: field 22 (point of service entry mode) has a length of 2, but takes 3"
    );
    let shorter = "41 = { name = \"card acceptor terminal identification\", format = \"ans\", length = \"fixed\", max = ";
    assert!(told(&format!("{shorter}8"), &format!("{shorter}6")).unwrap_err().contains("field 41"));
    assert!(told("set = { 70 = \"301\" }", "set = { 70 = \"30x\" }").unwrap_err().starts_with("echo: field 70"));
}

#[test]
fn frames_come_out_whole_however_the_stream_is_cut() {
    for (prefix, counts_itself, header, head) in [
        (LengthPrefix::Binary2, false, vec![], vec![0, 3]),
        (LengthPrefix::Binary2, true, vec![0x60, 0], vec![0, 7, 0x60, 0]),
        (LengthPrefix::Binary4, false, vec![], vec![0, 0, 0, 3]),
        (LengthPrefix::Ascii4, true, vec![], b"0007".to_vec()),
    ] {
        let framing = Framing { prefix, counts_itself, header };
        let frame = framing.frame(b"abc").unwrap();
        assert_eq!(*frame, [&head[..], b"abc"].concat());
        let keep_alive = if prefix == LengthPrefix::Ascii4 { b"0000".to_vec() } else { vec![0; framing_bytes(prefix)] };
        let stream = [&frame[..], &keep_alive, &frame[..]].concat();
        let mut framer = Framer::new(framing);
        let mut out = vec![];
        for byte in &stream {
            framer.push(&[*byte]);
            while let Some(message) = framer.next_message().unwrap() {
                out.push(message.to_vec());
            }
        }
        assert_eq!(out, [b"abc".to_vec(), b"abc".to_vec()]);
    }
}

fn framing_bytes(prefix: LengthPrefix) -> usize {
    if prefix == LengthPrefix::Binary2 { 2 } else { 4 }
}

#[test]
fn a_length_that_can_not_be_is_told() {
    let told = |prefix, header: &[u8], bytes: &[u8]| {
        let mut framer = Framer::new(Framing { prefix, counts_itself: false, header: header.to_vec() });
        framer.push(bytes);
        framer.next_message().unwrap_err()
    };
    assert_eq!(told(LengthPrefix::Binary2, &[], &[0xff, 0xff]), FrameError::TooLong { bytes: 65_535 });
    assert_eq!(told(LengthPrefix::Binary4, &[], &[0xff; 4]), FrameError::TooLong { bytes: 0xffff_ffff });
    assert_eq!(told(LengthPrefix::Binary2, &[1, 2], &[0, 2]), FrameError::TooShort { bytes: 2 });
    assert_eq!(told(LengthPrefix::Ascii4, &[], b"+010"), FrameError::NotDigits);
    let framing = Framing { prefix: LengthPrefix::Binary2, counts_itself: false, header: vec![] };
    assert!(matches!(framing.frame(&vec![0; MESSAGE_LIMIT_BYTES + 1]), Err(FrameError::TooLong { .. })));
}

/// A value that a field takes.
fn value(field: &FieldSpec) -> BoxedStrategy<Vec<u8>> {
    let max = usize::from(field.max);
    let length = if field.length == Length::Fixed { max..=max } else { 0..=max.min(40) };
    let set: Vec<u8> = match field.format {
        Format::N => (b'0'..=b'9').collect(),
        Format::A => (b'A'..=b'Z').chain([b' ']).collect(),
        Format::An => (b'0'..=b'9').chain(b'a'..=b'z').chain([b' ']).collect(),
        Format::Ans => (b' '..=b'~').collect(),
        Format::Z => (b'0'..=b'9').chain([b'=']).collect(),
        Format::B => (0..=255).collect(),
    };
    prop::collection::vec(prop::sample::select(set), length).boxed()
}

fn message(spec: &Spec) -> impl Strategy<Value = Message> + use<> {
    let field = |n| Some((n, prop::option::weighted(0.3, value(spec.field(n)?))));
    let (numbers, values): (Vec<u8>, Vec<_>) = (2..=128).filter_map(field).unzip();
    (prop::array::uniform4(b'0'..=b'9'), values).prop_map(move |(mti, values)| {
        let mut m = Message::new(Mti::from_digits(mti).unwrap());
        numbers.iter().zip(values).for_each(|(n, v)| v.into_iter().for_each(|v| m.set(*n, v)));
        m
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_back((m, b, e) in (message(&spec()), message(&bcd()), message(&ebcdic()))) {
        for (spec, m) in [(spec(), m), (bcd(), b), (ebcdic(), e)] {
            let bytes = encode(&spec, &m).unwrap();
            prop_assert_eq!(decode(&spec, &bytes).unwrap(), m);
            // Every shorter one is an error, never a panic and never a message.
            for end in 0..bytes.len() {
                prop_assert!(decode(&spec, &bytes[..end]).is_err());
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), prefix in 0..3usize) {
        for spec in [spec(), bcd(), ebcdic()] {
            if let Ok(m) = decode(&spec, &bytes) {
                let _shown = (m.shown(&spec).to_string(), judge(&spec, &request(Operation::Charge), &m));
            }
        }
        let prefix = [LengthPrefix::Binary2, LengthPrefix::Binary4, LengthPrefix::Ascii4][prefix];
        let mut framer = Framer::new(Framing { prefix, counts_itself: bytes.len() % 2 == 1, header: vec![0; bytes.len() % 3] });
        framer.push(&bytes);
        while let Ok(Some(_)) = framer.next_message() {}
    }
}

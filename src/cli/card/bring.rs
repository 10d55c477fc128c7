//! Lists of cards from another vault, as CSV (RFC 4180) or as JSON objects, one a line: read strictly, line by line, in memory that wipes
//! itself. An error names line and column and never repeats what stood there.

use std::fmt::Display;
use std::io::BufRead;

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::ids::CustomerId;
use crate::payment::Expiry;
use crate::secret::Pan;

/// No line of a list is longer.
const LINE_MAX_BYTES: usize = 4096;
/// No list is longer: its cards are held in memory until all of it is read.
pub(super) const LINES_LIMIT: usize = 1_000_000;
/// So many lines are named of which something has to be said.
const NAMED_LIMIT_LINES: usize = 20;
/// What another vault calls a card is no longer.
const REFERENCE_MAX_BYTES: usize = 255;

/// A card of the list.
pub(super) struct Line {
    /// Where it stands, from 1.
    pub number: usize,
    /// Whose card.
    pub customer: WhoseCard,
    /// What the other vault called it.
    pub reference: Option<String>,
    /// Its number.
    pub pan: Pan,
    /// The last month in which it is good.
    pub expiry: Option<Expiry>,
}

/// How a list names a customer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum WhoseCard {
    /// By our identifier.
    Id(CustomerId),
    /// By the digits that a caller keys.
    Number(String),
}

/// What is wrong with a list.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    /// The file.
    #[error("it can't be read: {0}")]
    Io(std::io::Error),
    /// Its first line.
    #[error("line 1: {0}")]
    Header(String),
    /// Lines, each with its number.
    #[error("{}", named(.0, *.1))]
    Lines(Vec<(usize, String)>, usize),
    /// Too many of them.
    #[error("it has more than {LINES_LIMIT} lines: split it")]
    TooLong,
}

/// The first of these lines with what there is to say of each, and how many more there are of `all`.
pub(super) fn named(lines: &[(usize, impl Display)], all: usize) -> String {
    let named: Vec<_> = lines.iter().take(NAMED_LIMIT_LINES).map(|(line, why)| format!("line {line}: {why}")).collect();
    let more = if all > named.len() { format!("\nand {} more", all - named.len()) } else { String::new() };
    format!("{}{more}", named.join("\n"))
}

/// The columns of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Customer,
    Reference,
    Number,
    Expires,
}

/// A security code must not be stored once a payment is authorised (PCI DSS 3.3.1), and no import is one.
const SECURITY_CODE: &str = "there is a column for the card's security code. Security codes may never be stored, and this program never \
     asks for one: remove the column, and delete the file that had it";
const COLUMNS: &str = "columns are customer, number, and if you like reference (or token) and expires";

impl Column {
    fn named(text: &str) -> Result<Self, String> {
        let plain: String = text.trim().chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        Ok(match plain.as_str() {
            "customer" | "customerid" | "customernumber" => Self::Customer,
            "reference" | "token" | "ref" => Self::Reference,
            "number" | "cardnumber" | "pan" => Self::Number,
            "expires" | "expiry" | "expiration" => Self::Expires,
            "cvv"
            | "cvv2"
            | "cvc"
            | "cvc2"
            | "cid"
            | "csc"
            | "cvn"
            | "cav2"
            | "securitycode"
            | "cardsecuritycode"
            | "cardverificationvalue"
            | "cardverificationcode"
            | "verificationvalue" => return Err(SECURITY_CODE.into()),
            "acquirertoken" | "paymentmethod" => {
                return Err(
                    "an acquirer's token can't be used: callers are recognised by the number that they say, so a card needs its \
                            number. Ask the acquirer to hand the numbers over (a token migration)"
                        .into(),
                );
            }
            // A heading may be a number out of its place: it is not repeated.
            _ => return Err(format!("there is a column that is not known; {COLUMNS}")),
        })
    }
}

/// Fields as they stand in a line.
#[derive(Default)]
struct Fields {
    customer: Option<Zeroizing<String>>,
    reference: Option<Zeroizing<String>>,
    number: Option<Zeroizing<String>>,
    expires: Option<Zeroizing<String>>,
}

impl Fields {
    fn place(&mut self, column: Column) -> &mut Option<Zeroizing<String>> {
        match column {
            Column::Customer => &mut self.customer,
            Column::Reference => &mut self.reference,
            Column::Number => &mut self.number,
            Column::Expires => &mut self.expires,
        }
    }

    fn line(self, number: usize) -> Result<Line, String> {
        let given = |field: Option<Zeroizing<String>>| field.filter(|text| !text.trim().is_empty());
        let customer = given(self.customer).ok_or("customer: it is empty")?;
        let customer = customer.trim();
        let customer = if customer.len() <= 10 && customer.bytes().all(|b| b.is_ascii_digit()) {
            WhoseCard::Number(customer.to_owned())
        } else {
            let id = CustomerId::parse(customer);
            WhoseCard::Id(
                id.map_err(|_| "customer: it is neither an identifier (cus_…) nor a customer number of 6 to 10 digits")?,
            )
        };
        let pan = given(self.number).ok_or("number: it is empty; a card without its number can't be used")?;
        let pan = Pan::parse(pan.trim()).map_err(|e| format!("number: {e}"))?;
        let expiry = match given(self.expires) {
            // The error of a date repeats it, and it may be a number in the wrong column.
            Some(text) => Some(text.trim().parse::<Expiry>().map_err(|_| "expires: it is no date of the form MM/YY")?),
            None => None,
        };
        let reference = match given(self.reference) {
            Some(text) if text.trim().len() > REFERENCE_MAX_BYTES || text.trim().chars().any(char::is_control) => {
                return Err(format!("reference: it has more than {REFERENCE_MAX_BYTES} bytes, or control characters"));
            }
            Some(text) if Pan::parse(text.trim()).is_ok() => {
                return Err("reference: it is a card number, which may not be stored in the clear".into());
            }
            Some(text) => Some(text.trim().to_owned()),
            None => None,
        };
        Ok(Line { number, customer, reference, pan, expiry })
    }
}

/// Reads a whole list. Nothing of it is good if one line is bad: lists are mended, not half imported.
pub(super) fn read(from: impl BufRead, json: bool) -> Result<Vec<Line>, ListError> {
    let mut lines = Lines { from, number: 0 };
    let columns = if json { Vec::new() } else { header(&mut lines)? };
    let (mut good, mut bad, mut all_bad) = (Vec::new(), Vec::new(), 0);
    while let Some(text) = lines.next()? {
        let number = lines.number;
        if number > LINES_LIMIT {
            return Err(ListError::TooLong);
        }
        let fields = match text {
            Ok(text) if text.trim().is_empty() => continue,
            Ok(text) if json => of_json(&text),
            Ok(text) => of_csv(&text, &columns),
            Err(why) => Err(why.to_owned()),
        };
        match fields.and_then(|fields| fields.line(number)) {
            Ok(line) => good.push(line),
            Err(why) => {
                all_bad += 1;
                if bad.len() < NAMED_LIMIT_LINES {
                    bad.push((number, why));
                }
            }
        }
    }
    if all_bad > 0 { Err(ListError::Lines(bad, all_bad)) } else { Ok(good) }
}

fn header(lines: &mut Lines<impl BufRead>) -> Result<Vec<Column>, ListError> {
    let empty = || ListError::Header(format!("it is empty; {COLUMNS}"));
    let text = lines.next()?.ok_or_else(empty)?.map_err(|why| ListError::Header(why.into()))?;
    let names = split(text.trim_start_matches('\u{feff}')).map_err(ListError::Header)?;
    let columns = names.iter().map(|name| Column::named(name)).collect::<Result<Vec<_>, _>>().map_err(ListError::Header)?;
    for needed in [Column::Customer, Column::Number] {
        if !columns.contains(&needed) {
            return Err(ListError::Header(format!("there is no column for the {}; {COLUMNS}", word(needed))));
        }
    }
    for (i, column) in columns.iter().enumerate() {
        if columns.iter().skip(i + 1).any(|other| other == column) {
            return Err(ListError::Header(format!("there are two columns for the {}", word(*column))));
        }
    }
    Ok(columns)
}

fn word(column: Column) -> &'static str {
    match column {
        Column::Customer => "customer",
        Column::Reference => "reference",
        Column::Number => "number",
        Column::Expires => "last month",
    }
}

fn of_csv(text: &str, columns: &[Column]) -> Result<Fields, String> {
    let values = split(text)?;
    if values.len() != columns.len() {
        return Err(format!("it has {} fields, and the heading {}", values.len(), columns.len()));
    }
    let mut fields = Fields::default();
    for (column, value) in columns.iter().zip(values) {
        *fields.place(*column) = Some(value);
    }
    Ok(fields)
}

/// One line into its fields (RFC 4180, but no field has a line break).
fn split(text: &str) -> Result<Vec<Zeroizing<String>>, String> {
    let mut fields = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut field = Zeroizing::new(String::with_capacity(text.len()));
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => return Err("a quoted field has no end".into()),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                if c == '"' {
                    return Err("there is a quotation mark in the middle of a field".into());
                }
                field.push(c);
            }
        }
        fields.push(field);
        match chars.next() {
            Some(',') => {}
            Some(_) => return Err("something follows the end of a quoted field".into()),
            None => return Ok(fields),
        }
    }
}

/// A text of a JSON object, in memory that wipes itself.
struct Text(Zeroizing<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Text;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Zeroizing::new(text.to_owned())))
            }
            fn visit_string<E>(self, text: String) -> Result<Text, E> {
                Ok(Text(Zeroizing::new(text)))
            }
        }
        from.deserialize_str(Visitor)
    }
}

fn of_json(text: &str) -> Result<Fields, String> {
    // The parser's own errors may quote the line.
    let object: std::collections::BTreeMap<String, Text> =
        serde_json::from_str(text).map_err(|_| "it is no JSON object whose values are texts")?;
    let mut fields = Fields::default();
    for (name, Text(value)) in object {
        let place = fields.place(Column::named(&name)?);
        if place.replace(value).is_some() {
            return Err("two fields say the same thing".into());
        }
    }
    Ok(fields)
}

/// Lines of bounded length, counted.
struct Lines<R> {
    from: R,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    /// The next line without its end; inside, why it can't be read.
    fn next(&mut self) -> Result<Option<Result<Zeroizing<String>, &'static str>>, ListError> {
        let mut line = Zeroizing::new(Vec::with_capacity(LINE_MAX_BYTES + 2));
        let mut long = false;
        loop {
            let chunk = self.from.fill_buf().map_err(ListError::Io)?;
            if chunk.is_empty() {
                if line.is_empty() && !long {
                    return Ok(None);
                }
                break;
            }
            let end = chunk.iter().position(|b| *b == b'\n');
            let taken = end.unwrap_or(chunk.len());
            let part = chunk.get(..taken).unwrap_or_default();
            long |= line.len() + part.len() > LINE_MAX_BYTES;
            if !long {
                line.extend_from_slice(part);
            }
            self.from.consume(end.map_or(taken, |_| taken + 1));
            if end.is_some() {
                break;
            }
        }
        self.number += 1;
        if long {
            return Ok(Some(Err("it is longer than 4096 bytes")));
        }
        let text = std::str::from_utf8(&line).map(|text| Zeroizing::new(text.trim_end_matches('\r').to_owned()));
        Ok(Some(text.map_err(|_| "it is not UTF-8")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(text: &str) -> Result<Vec<Line>, ListError> {
        read(text.as_bytes(), false)
    }

    fn told(text: &str) -> String {
        csv(text).map(|lines| lines.len()).unwrap_err().to_string()
    }

    const PAN: &str = "4111111111111111";

    #[test]
    fn a_list_is_read_as_csv_and_as_json_alike() {
        let from_csv = csv(
            "\u{feff}Token,Customer,Card Number,Expires\r\n\"tok,\"\"1\",cus_1,4111 1111-1111 1111,12/29\r\n\r\n,12345678,5555555555554444,\n",
        )
        .unwrap();
        let from_json = read(
            "{\"token\":\"tok,\\\"1\",\"customer\":\"cus_1\",\"number\":\"4111111111111111\",\"expires\":\"12/29\"}\n\
             {\"customer\":\"12345678\",\"pan\":\"5555555555554444\"}"
                .as_bytes(),
            true,
        )
        .unwrap();
        for lines in [&from_csv, &from_json] {
            assert_eq!(lines.len(), 2);
            assert_eq!(lines[0].reference.as_deref(), Some("tok,\"1"));
            assert_eq!(lines[0].customer, WhoseCard::Id(CustomerId::parse("cus_1").unwrap()));
            assert_eq!(lines[0].pan, Pan::parse(PAN).unwrap());
            assert_eq!(lines[0].expiry.unwrap().to_string(), "12/29");
            assert_eq!((&lines[1].customer, &lines[1].reference), (&WhoseCard::Number("12345678".into()), &None));
        }
        assert_eq!((from_csv[1].number, from_json[1].number), (4, 2), "lines are counted as an editor counts them");
    }

    #[test]
    fn security_codes_are_refused_whatever_they_are_called() {
        for name in ["cvv", "CVC", "CVV2", "security_code", "Card Security Code", "cid"] {
            let said = told(&format!("customer,number,{name}\ncus_1,{PAN},123\n"));
            assert!(said.contains("security code") && !said.contains("123"), "{said}");
        }
        let line = format!("{{\"customer\":\"cus_1\",\"number\":\"{PAN}\",\"cvc\":\"987\"}}");
        let said = read(line.as_bytes(), true).map(|_| ()).unwrap_err().to_string();
        assert!(said.contains("line 1") && said.contains("security code") && !said.contains("987"), "{said}");
    }

    #[test]
    fn bad_lines_are_named_and_nothing_of_them_is_repeated() {
        let said = told(
            "customer,number,reference,expires\n\
             cus_1,4111111111111112,,\n\
             ,4111111111111111,,\n\
             cus_1,,tok_1,\n\
             cus_1,4111111111111111,4111111111111111,\n\
             cus_1,4111111111111111,,4111111111111111\n\
             cus_1,4111111111111111\n\
             cus_1,\"4111111111111111,,\n\
             4111111111111111,4111111111111111,,\n\
             cus_1,5555555555554444,tok_2,09/30\n",
        );
        for (line, word) in [
            (2, "check digit"),
            (3, "customer"),
            (4, "number"),
            (5, "reference"),
            (6, "expires"),
            (7, "fields"),
            (8, "quoted"),
            (9, "customer"),
        ] {
            assert!(said.lines().any(|l| l.starts_with(&format!("line {line}: ")) && l.contains(word)), "{line} {word}\n{said}");
        }
        assert!(!said.contains("line 10") && !said.contains("1111111"), "{said}");
    }

    #[test]
    fn headings_say_what_is_missing_and_endless_lines_end() {
        assert!(told("customer,expires\n").contains("no column for the number"));
        assert!(told("customer,number,pan\n").contains("two columns"));
        assert!(told("customer,number,4111111111111111\n").contains("not known"));
        assert!(told("customer,number,acquirer_token\n").contains("acquirer"));
        assert!(told("").contains("empty"));
        let long = format!("customer,number\ncus_1,{}\ncus_1,{PAN}\n", "1".repeat(1_000_000));
        let said = told(&long);
        assert!(said.starts_with("line 2: it is longer") && said.lines().count() == 1, "{said}");
        assert!(read(b"customer,number\n\xff,1\n".as_slice(), false).map(|_| ()).unwrap_err().to_string().contains("UTF-8"));
        let many = format!("customer,number\n{}", "x,y\n".repeat(30));
        assert!(told(&many).ends_with("and 10 more"));
    }

    #[test]
    fn json_errors_repeat_nothing() {
        for line in [format!("{{\"customer\":\"cus_1\",\"number\":{PAN}}}"), format!("{PAN} {{"), "[]".to_owned()] {
            let said = read(line.as_bytes(), true).map(|_| ()).unwrap_err().to_string();
            assert!(said.starts_with("line 1: it is no JSON object") && !said.contains("1111"), "{said}");
        }
    }
}

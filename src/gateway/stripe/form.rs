//! `application/x-www-form-urlencoded` as Stripe's API takes it: nested fields in brackets, `card[exp_month]=9`
//! (https://docs.stripe.com/api, "form-encoded request bodies").

use std::fmt;

use zeroize::Zeroizing;

/// Room that a form is given at once: growing would leave copies of a card number behind in memory.
const FORM_ROOM_BYTES: usize = 4_096;

/// A form, or the query of a URL. It may hold a card number: it wipes itself and never prints.
pub(super) struct Form(Zeroizing<Vec<u8>>);

impl Form {
    pub(super) fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(FORM_ROOM_BYTES)))
    }

    /// Adds a field: `["card", "number"]` becomes `card[number]`.
    pub(super) fn with(mut self, path: &[&str], value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(b'&');
        }
        for (depth, name) in path.iter().enumerate() {
            if depth == 0 {
                self.escaped(name);
            } else {
                self.0.push(b'[');
                self.escaped(name);
                self.0.push(b']');
            }
        }
        self.0.push(b'=');
        self.escaped(value);
        self
    }

    fn escaped(&mut self, text: &str) {
        const HEX: [u8; 16] = *b"0123456789ABCDEF";
        let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
        for byte in text.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => self.0.push(byte),
                _ => self.0.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]),
            }
        }
    }

    /// As text, for a URL: without secrets.
    pub(super) fn query(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The bytes; whoever holds them last wipes them.
    pub(super) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Form(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_nest_as_the_api_documents_it() {
        // The shapes of Stripe's own examples: metadata, payment_method_options, lists of expansions.
        let form = Form::new()
            .with(&["amount"], "2000")
            .with(&["metadata", "order_id"], "6735")
            .with(&["payment_method_options", "card", "moto"], "true")
            .with(&["expand", ""], "latest_charge");
        assert_eq!(
            form.query(),
            "amount=2000&metadata[order_id]=6735&payment_method_options[card][moto]=true&expand[]=latest_charge"
        );
    }

    #[test]
    fn nothing_in_a_value_can_become_another_field() {
        let form = Form::new().with(&["name"], "a&amount=1 +%[é]").with(&["k]&x"], "");
        assert_eq!(form.query(), "name=a%26amount%3D1%20%2B%25%5B%C3%A9%5D&k%5D%26x=");
        assert_eq!(format!("{form:?}"), "Form(…)");
        assert!(Form::new().into_bytes().is_empty());
    }
}

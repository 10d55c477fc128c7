//! The query of a request: `name=value` pairs, percent-encoded (RFC 3986 §2.1), none unknown and none twice.

use super::problem::Problem;
use super::route::Param;

/// Reads it.
pub fn read(query: &str, params: &[Param]) -> Result<Vec<(String, String)>, Problem> {
    let mut found: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        if !params.iter().any(|p| p.name == name) {
            return Err(Problem::invalid("the query has a parameter that is unknown here"));
        }
        if found.iter().any(|(n, _)| *n == name) {
            return Err(Problem::invalid(format!("`{name}` stands twice in the query")));
        }
        found.push((name, value));
    }
    match params.iter().find(|p| p.required && !found.iter().any(|(n, _)| n == p.name)) {
        Some(missing) => Err(Problem::invalid(format!("the query lacks `{}`", missing.name))),
        None => Ok(found),
    }
}

/// Undoes percent-encoding; `+` is a space, as forms write it.
pub fn decode(text: &str) -> Result<String, Problem> {
    let wrong = || Problem::invalid("the address is not percent-encoded UTF-8");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next().ok_or_else(wrong)?, bytes.next().ok_or_else(wrong)?];
                let mut one = [0];
                hex::decode_to_slice(digits, &mut one).map_err(|_| wrong())?;
                let [one] = one;
                one
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(out).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::super::route::LIST;
    use super::*;

    #[test]
    fn pairs_are_read_and_what_is_wrong_is_refused() {
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(read("limit=5&after=a%2Fb+c", LIST).unwrap(), [pair("limit", "5"), pair("after", "a/b c")]);
        assert_eq!(read("", LIST).unwrap(), []);
        for wrong in ["limit=1&limit=2", "other=1", "limit=%", "limit=%4", "limit=%zz", "limit=%ff", "limi%74=1&limit=1"] {
            assert!(read(wrong, LIST).is_err(), "{wrong}");
        }
    }
}

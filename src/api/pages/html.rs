//! A page as bytes: one file that loads nothing from anywhere and needs no script, in the reader's language, light or dark as they have it. Whatever
//! is outside data is escaped here and nowhere else.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::words::Line;
use crate::clock::Timestamp;
use crate::language::Language;
use crate::payment::account::Wording;

const STYLE: &str = include_str!("page.css");

/// Nothing may be loaded or run but this style; the form goes back to where it came from; nobody may frame it to have a button pressed unseen.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    format!("default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
});

/// A page.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// HTTP's status.
    pub status: StatusCode,
    /// In which language.
    pub language: Language,
    /// What it is about.
    pub title: Line,
    /// What became of it, or is wrong.
    pub notice: Option<Notice>,
    /// What is asked.
    pub facts: Vec<(Line, Fact)>,
    /// What can be answered.
    pub form: Option<Form>,
    /// When to come again, in seconds.
    pub retry_after_s: Option<u64>,
}

/// What became of it, or is wrong.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    /// The sentence.
    pub line: Line,
    /// What follows it: a number, a reference.
    pub more: Option<String>,
}

/// A value beside its name.
#[derive(Clone, Debug)]
pub(super) enum Fact {
    /// Outside data.
    Text(String),
    /// A word of ours.
    Word(Line),
    /// A moment.
    At(Timestamp),
}

/// What can be answered.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// The button for it.
    pub yes: Line,
    /// The button against it.
    pub no: Line,
    /// What has to be agreed to.
    pub wording: Option<Wording>,
    /// Whether a code has to be entered.
    pub code: bool,
}

impl From<Line> for Notice {
    fn from(line: Line) -> Self {
        Self { line, more: None }
    }
}

impl Page {
    /// One that says a sentence and nothing else.
    pub(super) fn plain(status: StatusCode, language: Language, line: Line) -> Self {
        Self {
            status,
            language,
            title: Line::Title,
            notice: Some(line.into()),
            facts: Vec::new(),
            form: None,
            retry_after_s: None,
        }
    }

    /// The answer.
    pub(super) fn response(self) -> Response {
        let mut response = Response::new(Body::from(self.text()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let fixed: [(HeaderName, &'static str); 5] = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CONTENT_LANGUAGE, self.language.code()),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // Made of constants and base64: it is always a header's value.
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_str(&POLICY).unwrap_or(HeaderValue::from_static("default-src 'none'")),
        );
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }

    fn text(&self) -> String {
        let say = |line: Line| line.text(self.language);
        let title = say(self.title);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta name=\"robots\" content=\"noindex\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n",
            self.language.code()
        );
        if let Some(Notice { line, more }) = &self.notice {
            let (role, kind) = if self.status.is_success() { ("status", "done") } else { ("alert", "wrong") };
            let more = more.as_ref().map(|more| format!(" {}", escaped(more))).unwrap_or_default();
            add(&mut out, format_args!("<p class=\"{kind}\" role=\"{role}\">{}{more}</p>\n", say(*line)));
        }
        if !self.facts.is_empty() {
            out.push_str("<dl>\n");
            for (name, fact) in &self.facts {
                let value = match fact {
                    Fact::Text(text) => escaped(text),
                    Fact::Word(line) => say(*line).to_owned(),
                    Fact::At(at) => moment(*at),
                };
                add(&mut out, format_args!("<div><dt>{}</dt><dd>{value}</dd></div>\n", say(*name)));
            }
            out.push_str("</dl>\n");
        }
        if let Some(form) = &self.form {
            self.form(form, &mut out);
        }
        out.push_str("</main>\n</body>\n</html>\n");
        out
    }

    fn form(&self, form: &Form, out: &mut String) {
        let say = |line: Line| line.text(self.language);
        // It goes to where the page came from: the token stands in no page.
        out.push_str("<form method=\"post\" autocomplete=\"off\">\n");
        if let Some(wording) = form.wording {
            let (text, version) = (escaped(wording.text), escaped(wording.version));
            add(out, format_args!("<h2>{}</h2>\n<p id=\"wording\" lang=\"en\">{text}</p>\n", say(Line::Wording)));
            if self.language != Language::English {
                add(out, format_args!("<p>{}{}</p>\n", say(Line::WordingIs), say(Line::WordingTranslated)));
            }
            add(
                out,
                format_args!(
                    "<p><label><input type=\"checkbox\" name=\"consent\" value=\"{version}\" aria-describedby=\"wording\" required> {}</label></p>\n",
                    say(Line::IAgree)
                ),
            );
        }
        if form.code {
            add(
                out,
                format_args!(
                    "<p><label for=\"code\">{}</label>\n<input id=\"code\" name=\"code\" inputmode=\"numeric\" autocomplete=\"one-time-code\" \
                     pattern=\"[0-9]{{6}}\" maxlength=\"6\" aria-describedby=\"hint\" required>\n<small id=\"hint\">{}</small></p>\n",
                    say(Line::Code),
                    say(Line::CodeHint)
                ),
            );
        }
        let button = |class: &str, value: &str, unchecked: &str, line: Line| {
            format!("<button class=\"{class}\" name=\"answer\" value=\"{value}\"{unchecked}>{}</button>\n", say(line))
        };
        // "No" and "send" need neither consent nor code. The first button is what Enter presses.
        out.push_str("<p class=\"answers\">\n");
        out.push_str(&button("yes", "yes", "", form.yes));
        out.push_str(&button("no", "no", " formnovalidate", form.no));
        out.push_str("</p>\n");
        if form.code {
            out.push_str(&button("send", "code", " formnovalidate", Line::SendCode));
        }
        out.push_str("</form>\n");
    }
}

/// Writing into a text can't fail.
fn add(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _never_fails = out.write_fmt(text);
}

/// As a person reads it, and as a program does.
fn moment(at: Timestamp) -> String {
    let exact = at.to_string();
    let short = exact.get(..16).unwrap_or(&exact).replace('T', " ");
    format!("<time datetime=\"{exact}\">{short} UTC</time>")
}

/// Outside data between tags or in an attribute between double quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Marks that turn the direction of writing would let a name change how what follows it reads.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::account::WORDING;

    fn page(language: Language) -> Page {
        let form = Form { yes: Line::YesPurchase, no: Line::NoPurchase, wording: Some(WORDING), code: true };
        let name = "<script>alert('1')</script> & \"Co\" \u{202e}evil".to_owned();
        Page {
            title: Line::PurchaseTitle,
            facts: vec![(Line::Payee, Fact::Text(name)), (Line::Until, Fact::At(Timestamp(1_800_000_000_000)))],
            form: Some(form),
            notice: Some(Notice { line: Line::WrongCode, more: Some("<3".into()) }),
            ..Page::plain(StatusCode::CONFLICT, language, Line::WrongCode)
        }
    }

    #[test]
    fn what_is_outside_data_is_text_and_no_markup() {
        let text = page(Language::English).text();
        assert!(text.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;Co&quot; evil"), "{text}");
        assert!(text.contains("Tries left: &lt;3"));
        assert!(!text.contains("<script") && !text.contains('\u{202e}'));
    }

    #[test]
    fn a_page_loads_nothing_and_its_style_is_the_one_that_the_policy_names() {
        let text = page(Language::Mandarin).text();
        for outside in ["http:", "https:", "src=", "href=", "url(", "@import", "javascript", "onclick", "style=\""] {
            assert!(!text.contains(outside), "{outside}");
        }
        let style = text.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let hash = STANDARD.encode(Sha256::digest(style.as_bytes()));
        assert!(POLICY.contains(&format!("style-src 'sha256-{hash}'")));
        assert!(HeaderValue::from_str(&POLICY).is_ok());
        assert!(text.contains("<html lang=\"zh\">") && text.contains("<p id=\"wording\" lang=\"en\">I allow this payee"));
        assert!(text.contains("2027-01-15 08:00 UTC"), "{text}");
    }

    #[test]
    fn whoever_uses_a_keyboard_or_a_screen_reader_finds_everything_by_name() {
        let text = page(Language::English).text();
        assert!(text.contains("<label for=\"code\">One-time code</label>") && text.contains("id=\"code\""));
        assert!(text.contains("aria-describedby=\"wording\" required> I agree to this</label>"));
        assert!(text.contains("role=\"alert\""));
        let yes = text.find("value=\"yes\"").unwrap();
        assert!(text.find("value=\"no\" formnovalidate").is_some_and(|no| yes < no), "Enter says what the first button says");
        assert!(!text.contains("tabindex"));
    }
}

//! `voicepay customer export`: everything that is held about one person, as one JSON document, written as it is read.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::super::Context;
use super::super::data::{Data, refused, store_error};
use super::super::exit::{CliError, CliResult, Exit};
use crate::ids::CustomerId;
use crate::rights::RetentionConfig;
use crate::rights::export::{self, FORMAT, Part};

/// Things that are read at a time.
const PAGE: u32 = 200;

pub(super) async fn run(ctx: &Context, data: &Data, id: &CustomerId, out: Option<&Path>) -> CliResult {
    let customer = data.store.customer(id).await.map_err(store_error)?;
    let customer = customer.ok_or_else(|| refused(format!("there is no customer {id}: see `voicepay customer list`")))?;
    let cfg = ctx.config()?.retention;
    // Written before anything is handed over, and not where nothing will be.
    let note = async || {
        let audit = data.audit("customer.exported", id.as_str(), json!({}));
        data.store.audit(&audit).await.map_err(store_error)
    };
    let Some(path) = out else {
        note().await?;
        return write(data, &cfg, &customer, &mut io::stdout().lock()).await.map(drop);
    };
    // Its owner's eyes only, and never over what is there.
    let named = |e: io::Error| CliError::new(Exit::Refused, format!("{}: {e}", path.display()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(named)?;
    note().await?;
    let mut file = io::BufWriter::new(file);
    let items = write(data, &cfg, &customer, &mut file).await?;
    file.flush().map_err(named)?;
    let text = format!("everything that is held about {id} is in {}", path.display());
    ctx.answer(&json!({ "customer": id, "file": path, "items": items }), &text);
    Ok(())
}

/// Writes the document page by page; says how many things are in its lists.
async fn write(
    data: &Data,
    cfg: &RetentionConfig,
    customer: &crate::store::Customer,
    out: &mut impl Write,
) -> Result<usize, CliError> {
    let unwritten = |e: io::Error| CliError::new(Exit::Unexpected, format!("the export can't be written: {e}"));
    let now = data.now();
    let (mut from, mut first, mut items) = (None, true, 0);
    // The list that is open, and whether it has something already.
    let mut open: Option<(Part, bool)> = None;
    loop {
        let page = export::page(&*data.store, cfg, customer, from, PAGE, now).await.map_err(store_error)?;
        if first {
            let person = page.person.unwrap_or(Value::Null);
            let (id, at) = (json!(customer.id), json!(now.to_string()));
            write!(out, "{{\"format\":\"{FORMAT}\",\"customer\":{id},\"made_at\":{at},\"person\":{person}").map_err(unwritten)?;
            first = false;
        }
        for (part, item) in page.items {
            open = Some(opened(out, open, part).map_err(unwritten)?);
            let comma = matches!(open, Some((_, true)));
            write!(out, "{}{item}", if comma { ",\n" } else { "\n" }).map_err(unwritten)?;
            open = Some((part, true));
            items += 1;
        }
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    if let Some(last) = Part::ALL.last() {
        opened(out, open, *last).map_err(unwritten)?;
    }
    writeln!(out, "\n]}}").map_err(unwritten)?;
    Ok(items)
}

/// Closes lists and opens others until `part` is the open one.
fn opened(out: &mut impl Write, open: Option<(Part, bool)>, part: Part) -> io::Result<(Part, bool)> {
    if let Some((_, filled)) = open.filter(|(p, _)| *p == part) {
        return Ok((part, filled));
    }
    for each in Part::ALL.into_iter().filter(|p| open.is_none_or(|(before, _)| *p > before) && *p <= part) {
        let close = if open.is_some() || each > Part::Requests { "]" } else { "" };
        write!(out, "{close},\n\"{}\":[", each.as_str())?;
    }
    Ok((part, false))
}

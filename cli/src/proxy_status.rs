//! `weft proxy-status`: whether proxies have what the operator sent them.

use serde_json::Value;

use crate::{
    admin::{self, Admin},
    output, table,
};

const TYPES: [&str; 5] = ["cds", "lds", "eds", "rds", "vhds"];

/// Show every connected proxy and whether it has the configuration that it was sent.
///
/// SYNCED: it acknowledged all. STALE: an answer is due. REJECTED: it refused the last response; the reason is shown
/// below the table. NOT SENT: it asked for nothing of that type, or there is nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weft proxy-status
  weft proxy-status --admin http://127.0.0.1:15014")]
pub struct Args {
    #[command(flatten)]
    admin: Admin,
}

/// Shows the table.
///
/// # Errors
/// When the operator does not answer.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let operators = args.admin.connect()?;
    output::print(&render(&operators.proxies()?))
}

fn render(proxies: &[admin::Proxy]) -> String {
    let mut rows = Vec::new();
    let mut refusals = Vec::new();
    for admin::Proxy { operator, state: proxy } in proxies {
        let text = |key: &str| proxy[key].as_str().unwrap_or("-").to_owned();
        let name = text("proxy");
        let mut row = vec![name.clone()];
        for kind in TYPES {
            let state = &proxy["types"][kind];
            row.push(state["state"].as_str().unwrap_or("NOT SENT").to_owned());
            if !state["lastNack"].is_null() {
                refusals.push(format!("{name} refused {kind}: {}", reason(&state["lastNack"])));
            }
        }
        row.extend([operator.clone(), text("proxy_version")]);
        rows.push(row);
    }
    if rows.is_empty() {
        return "No proxy is connected.\n".to_owned();
    }
    rows.sort();
    let header = ["NAME", "CDS", "LDS", "EDS", "RDS", "VHDS", "OPERATOR", "VERSION"];
    let mut text = table::render(&header, &rows);
    for refusal in refusals {
        text.push_str(&format!("\n{refusal}"));
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn reason(nack: &Value) -> String {
    match nack {
        Value::String(text) => text.clone(),
        _ => nack["reason"].as_str().map_or_else(|| nack.to_string(), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_proxy_has_a_line_and_refusals_are_explained() {
        let state = |state: &str| json!({"state": state, "lastNack": null});
        let proxies = [
            json!({"proxy": "b.default", "proxy_version": "weft-proxy/0.1.0", "types": {
                "cds": state("SYNCED"), "lds": {"state": "REJECTED", "lastNack": {"reason": "no such filter"}}}}),
            json!({"proxy": "a.default", "proxy_version": "envoy/1.40.0", "types": {
                "cds": state("STALE"), "lds": state("SYNCED"), "eds": state("SYNCED"), "rds": state("SYNCED")}}),
        ];
        let operator = "127.0.0.1:15014".to_owned();
        let proxies = proxies.map(|state| admin::Proxy { operator: operator.clone(), state });
        assert_eq!(
            render(&proxies),
            "NAME        CDS      LDS        EDS        RDS        VHDS       OPERATOR          VERSION\n\
             a.default   STALE    SYNCED     SYNCED     SYNCED     NOT SENT   127.0.0.1:15014   envoy/1.40.0\n\
             b.default   SYNCED   REJECTED   NOT SENT   NOT SENT   NOT SENT   127.0.0.1:15014   weft-proxy/0.1.0\n\
             \nb.default refused lds: no such filter\n"
        );
        assert_eq!(render(&[]), "No proxy is connected.\n");
    }
}

//! `weft proxy-config`: what one proxy holds.
//!
//! The proxy itself is asked (`/config_dump` on its administration port): what it holds counts, not what it was sent.
//! A proxy that is named is found through the operator; when only the operator can be reached, its record of what it
//! sent is shown instead.

mod dump;
mod sent;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde_json::Value;

use crate::{
    admin::{Admin, Proxy},
    http, output, table,
};

const ADMIN_PORT: u16 = 15000;

/// Show the listeners, routes, clusters or endpoints that a proxy holds.
///
/// NODE is the proxy's address (its administration port is 15000 unless given) or its name as weft proxy-status shows it:
/// POD.NAMESPACE, or the pod's name alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weft proxy-config routes order-service-v1-1.default
  weft proxy-config clusters 127.10.11.1
  weft proxy-config endpoints --proxy-admin http://127.10.11.1:15000 -o json")]
pub struct Args {
    /// What to show.
    #[arg(value_enum)]
    kind: Kind,

    /// The proxy: its address or its name.
    #[arg(required_unless_present = "proxy_admin")]
    node: Option<String>,

    /// The proxy's administration port; the operator is not asked then.
    #[arg(long, value_name = "URL", conflicts_with = "node")]
    proxy_admin: Option<String>,

    /// How it is shown.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    output: Format,

    #[command(flatten)]
    admin: Admin,
}

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Where connections are accepted, and what becomes of them.
    #[value(alias = "listener", alias = "l")]
    Listeners,
    /// Where requests go.
    #[value(alias = "route", alias = "r")]
    Routes,
    /// Destinations of requests and connections.
    #[value(alias = "cluster", alias = "c")]
    Clusters,
    /// Addresses behind the clusters.
    #[value(alias = "endpoint", alias = "e")]
    Endpoints,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// As the proxy has it.
    Json,
}

/// Shows what was asked for.
///
/// # Errors
/// When neither the proxy nor the operator can answer.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let text = match (&args.proxy_admin, &args.node) {
        (Some(url), _) => held(url, args).context("the proxy")?,
        (None, Some(node)) => match address(node) {
            Some(base) => held(&base, args).context("the proxy")?,
            None => of_node(node, args)?,
        },
        (None, None) => bail!("which proxy?"),
    };
    output::print(&text)
}

/// What the proxy behind an administration port holds.
fn held(base: &str, args: &Args) -> anyhow::Result<String> {
    show(args, &http::get_json(base, "/config_dump")?)
}

fn show(args: &Args, dump: &Value) -> anyhow::Result<String> {
    Ok(match args.output {
        Format::Table => render(dump::table(args.kind, dump)),
        Format::Json => json(&dump::resources(args.kind, dump))?,
    })
}

fn of_node(node: &str, args: &Args) -> anyhow::Result<String> {
    let operators = args.admin.connect()?;
    let proxies = operators.proxies()?;
    let called: Vec<&Proxy> =
        proxies.iter().filter(|proxy| is_called(&proxy.state, node)).collect();
    let names: Vec<&str> = called.iter().filter_map(|p| p.state["proxy"].as_str()).collect();
    let (Some(proxy), Some(name)) = (called.first(), names.first()) else {
        bail!("no proxy {node:?} is connected to {operators}; weft proxy-status lists them");
    };
    if names.iter().any(|other| other != name) {
        bail!("{node:?} may be any of {}", names.join(", "));
    }
    match operators.ask_proxy(proxy, ADMIN_PORT, "/config_dump") {
        Ok(dump) => show(args, &dump),
        Err(error) => {
            output::error(&format!(
                "note: the proxy cannot be asked ({error:#}); this is what the operator sent it"
            ));
            let path = format!("/debug/config_dump?proxyID={name}");
            let dump = operators.ask(&proxy.operator, &path).context("the operator")?;
            Ok(match args.output {
                Format::Table => render(sent::table(args.kind, &dump)),
                Format::Json => json(&sent::resources(args.kind, &dump))?,
            })
        }
    }
}

fn is_called(proxy: &Value, node: &str) -> bool {
    let name = proxy["proxy"].as_str().unwrap_or_default();
    let pod = name.rsplit_once('.').map(|(pod, _)| pod);
    name == node || pod == Some(node) || proxy["node"].as_str() == Some(node)
}

/// The administration port of an address, `None` for a name.
fn address(node: &str) -> Option<String> {
    if node.starts_with("http://") || node.parse::<std::net::SocketAddr>().is_ok() {
        return Some(node.to_owned());
    }
    match node.parse::<std::net::IpAddr>() {
        Ok(ip) => Some(std::net::SocketAddr::new(ip, ADMIN_PORT).to_string()),
        Err(_) => node.strip_prefix("localhost:").map(|_| node.to_owned()),
    }
}

fn render((header, rows): (Vec<&'static str>, Vec<Vec<String>>)) -> String {
    table::render(&header, &rows)
}

fn json(resources: &[Value]) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(resources)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_names() {
        for (node, expected) in [
            ("127.0.0.1", Some("127.0.0.1:15000")),
            ("::1", Some("[::1]:15000")),
            ("127.0.0.1:1500", Some("127.0.0.1:1500")),
            ("localhost:15000", Some("localhost:15000")),
            ("http://a:1", Some("http://a:1")),
            ("orders-1.default", None),
            ("orders", None),
        ] {
            assert_eq!(address(node).as_deref(), expected, "{node}");
        }
    }
}

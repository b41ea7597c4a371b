//! What `weft-proxy init` is asked to capture: Istio's flags, and what they mean.

use std::{fmt, net::IpAddr, str::FromStr};

use clap::Args;
use ipnet::IpNet;

/// Arguments of `weft-proxy init`. The flags are those of Istio's `istio-iptables`.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// Port that outbound connections are redirected to.
    #[arg(short = 'p', long = "envoy-port", default_value_t = 15001, value_name = "PORT")]
    pub outbound_port: u16,
    /// Port that inbound connections are redirected to.
    #[arg(
        short = 'z',
        long = "inbound-capture-port",
        default_value_t = 15006,
        value_name = "PORT"
    )]
    pub inbound_port: u16,
    /// Port of inbound tunnels, which is left alone.
    #[arg(short = 'e', long = "inbound-tunnel-port", default_value_t = 15008, value_name = "PORT")]
    pub tunnel_port: u16,
    /// Users whose connections are the proxy's own and not captured; separated by commas.
    #[arg(
        short = 'u',
        long = "proxy-uid",
        default_value = "1337",
        value_delimiter = ',',
        value_name = "UID"
    )]
    pub uids: Vec<u32>,
    /// Groups whose connections are the proxy's own [default: the numbers of -u].
    #[arg(short = 'g', long = "proxy-gid", value_delimiter = ',', value_name = "GID")]
    pub gids: Vec<u32>,
    /// How inbound connections are captured: REDIRECT. TPROXY is refused.
    #[arg(
        short = 'm',
        long = "istio-inbound-interception-mode",
        default_value = "REDIRECT",
        value_name = "MODE"
    )]
    pub mode: Mode,
    /// Outbound addresses that are captured: CIDRs separated by commas, or * for all.
    #[arg(short = 'i', long = "istio-service-cidr", default_value = "*", value_name = "CIDRS")]
    pub include_ranges: Ranges,
    /// Outbound addresses that are not captured; counts with -i '*' and with CIDRs.
    #[arg(
        short = 'x',
        long = "istio-service-exclude-cidr",
        default_value = "",
        value_name = "CIDRS"
    )]
    pub exclude_ranges: List<Cidr>,
    /// Inbound ports that are captured: numbers separated by commas, * for all, or nothing for none.
    #[arg(short = 'b', long = "istio-inbound-ports", default_value = "*", value_name = "PORTS")]
    pub include_inbound: Ports,
    /// Inbound ports that are not captured.
    #[arg(
        short = 'd',
        long = "istio-local-exclude-ports",
        default_value = "15090,15021,15020",
        value_name = "PORTS"
    )]
    pub exclude_inbound: List<Port>,
    /// Outbound ports that are captured whatever the address is; * for all.
    #[arg(short = 'q', long = "istio-outbound-ports", default_value = "", value_name = "PORTS")]
    pub include_outbound: Ports,
    /// Outbound ports that are not captured.
    #[arg(
        short = 'o',
        long = "istio-local-outbound-ports-exclude",
        default_value = "",
        value_name = "PORTS"
    )]
    pub exclude_outbound: List<Port>,
    /// Interfaces of virtual machines whose connections count as outbound.
    #[arg(short = 'k', long = "kube-virt-interfaces", default_value = "", value_name = "NAMES")]
    pub virtual_interfaces: List<Interface>,
    /// Interfaces whose connections are not captured.
    #[arg(
        short = 'c',
        long = "istio-exclude-interfaces",
        default_value = "",
        value_name = "NAMES"
    )]
    pub exclude_interfaces: List<Interface>,
    /// Capture of DNS is not implemented; the flag is refused so that nobody relies on it.
    #[arg(long = "redirect-dns", hide = true)]
    pub redirect_dns: bool,
    /// Print the rules in nft's syntax and change nothing.
    #[arg(long, alias = "dry-run", conflicts_with = "check")]
    pub print: bool,
    /// Compare the kernel's rules with what they should be and change nothing; fails, saying which are missing.
    #[arg(long, alias = "run-validation")]
    pub check: bool,
}

/// How connections are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By rewriting the destination.
    Redirect,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "REDIRECT" => Ok(Self::Redirect),
            "TPROXY" => Err("TPROXY is not supported: use REDIRECT, or NONE without this step \
                             (annotation sidecar.istio.io/interceptionMode)"
                .into()),
            other => Err(format!("{other:?} is not REDIRECT")),
        }
    }
}

/// A list separated by commas; blanks and empty items do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: FromStr<Err = String>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// A range of addresses, or a single one; bits after the prefix do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(pub IpNet);

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address)),
            Err(_) => text.parse::<IpNet>().ok(),
        };
        parsed.map(|range| Self(range.trunc())).ok_or_else(|| {
            format!("{text:?} is not an address or a CIDR such as 10.0.0.0/8 or fd00::/8")
        })
    }
}

/// A port number, not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub u16);

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(port) if port > 0 => Ok(Self(port)),
            _ => Err(format!("{text:?} is not a port (1 to 65535)")),
        }
    }
}

/// Which ports are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// `*`.
    All,
    /// These; none when empty.
    Listed(Vec<Port>),
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        text.parse::<List<Port>>().map(|list| Self::Listed(list.0))
    }
}

/// Which addresses are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// `*`.
    All,
    /// These; none when empty.
    Listed(Vec<Cidr>),
}

impl FromStr for Ranges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        text.parse::<List<Cidr>>().map(|list| Self::Listed(list.0))
    }
}

/// The name of a network interface; with `+` at the end, every interface whose name begins so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    name: Box<str>,
    prefix: bool,
}

impl Interface {
    /// The loopback interface.
    pub fn loopback() -> Self {
        Self { name: "lo".into(), prefix: false }
    }

    /// What the kernel compares: the name with its end, or only its beginning.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.name.as_bytes().to_vec();
        if !self.prefix {
            bytes.resize(Self::MAX + 1, 0);
        }
        bytes
    }

    /// Longest name that the kernel takes.
    const MAX: usize = 15;
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, prefix) = match text.strip_suffix('+') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let valid = |byte: u8| byte.is_ascii_graphic() && !b"/\"*\\:".contains(&byte);
        if name.is_empty() || name.len() > Self::MAX || !name.bytes().all(valid) {
            return Err(format!("{text:?} is not the name of a network interface"));
        }
        Ok(Self { name: name.into(), prefix })
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}{}\"", self.name, if self.prefix { "*" } else { "" })
    }
}

#[cfg(test)]
impl InitArgs {
    /// What a command line says.
    pub fn parse(flags: &[&str]) -> Result<Self, String> {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: InitArgs,
        }
        let line = std::iter::once("init").chain(flags.iter().copied());
        <Cli as clap::Parser>::try_parse_from(line)
            .map(|cli| cli.args)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_with_blanks_and_empty_items() {
        assert_eq!("".parse(), Ok(List::<Port>(vec![])));
        assert_eq!(" 80, 443,".parse(), Ok(List(vec![Port(80), Port(443)])));
        assert_eq!("*".parse(), Ok(Ports::All));
        assert_eq!("".parse(), Ok(Ports::Listed(vec![])));
        let net = Cidr("10.0.0.0/8".parse().unwrap());
        assert_eq!("10.1.2.3/8".parse(), Ok(Ranges::Listed(vec![net])), "host bits do not count");
        assert_eq!("::1".parse(), Ok(List(vec![Cidr("::1/128".parse().unwrap())])));
    }

    #[test]
    fn bad_values_name_themselves() {
        for (flags, told) in [
            (["-d", "80,x"], "\"x\" is not a port"),
            (["-o", "0"], "\"0\" is not a port"),
            (["-b", "70000"], "\"70000\" is not a port"),
            (["-x", "10.0.0.0/33"], "\"10.0.0.0/33\" is not an address or a CIDR"),
            (["-i", "all"], "\"all\" is not an address"),
            (["-m", "TPROXY"], "TPROXY is not supported"),
            (["-m", "redirect"], "\"redirect\" is not REDIRECT"),
            (["-c", "a name"], "\"a name\" is not the name of a network interface"),
            (["-k", "much-too-long-name"], "is not the name of a network interface"),
            (["-u", "root"], "invalid value 'root'"),
        ] {
            let error = InitArgs::parse(&flags).unwrap_err();
            assert!(error.contains(told), "{flags:?}: {error}");
        }
    }

    #[test]
    fn istios_own_line_is_understood() {
        let line = "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -b * -d 15090,15021,15020 -x";
        let mut flags: Vec<_> = line.split(' ').collect();
        flags.push("");
        let args = InitArgs::parse(&flags).unwrap();
        assert_eq!(args.include_ranges, Ranges::All);
        assert_eq!(args.exclude_ranges, List(vec![]));
        assert_eq!(args.exclude_inbound, List(vec![Port(15090), Port(15021), Port(15020)]));
    }
}

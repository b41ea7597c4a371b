//! The packet rules of capture, as values: made from the settings, printed in nft's syntax, encoded by [`super::nftables`].
//!
//! Order counts. Source: `istio-behaviours`, 3.4.

use std::fmt;

use ipnet::IpNet;

use super::settings::{Cidr, InitArgs, Interface, Port, Ports, Ranges};

/// The table's name; its family is `inet`.
pub const TABLE: &str = "weft";

/// Where connections are looked at: both chains translate destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// What comes in.
    Prerouting,
    /// What the pod's processes send.
    Output,
}

impl Chain {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Prerouting, Self::Output];

    /// Its name; the hook has the same.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
        }
    }

    /// The priority of destination translation, which is the same at both hooks.
    pub const PRIORITY: i32 = -100;
}

/// Equal or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// Equal.
    Equal,
    /// Different.
    Not,
}

impl fmt::Display for Is {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "",
            Self::Not => "!= ",
        })
    }
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The packet is TCP.
    Tcp,
    /// The TCP destination port.
    Port(Is, u16),
    /// Where the packet comes in.
    From(Interface),
    /// Where the packet goes out.
    Through(Interface),
    /// The source address.
    Source(Is, IpNet),
    /// The destination address.
    Destination(Is, IpNet),
    /// The user that has the socket.
    User(Is, u32),
    /// The group that has the socket.
    Group(Is, u32),
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes where it wants to.
    Return,
    /// It goes to this port of the pod.
    Redirect(u16),
}

/// A rule: when all conditions hold, the action is taken and no further rule is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its chain.
    pub chain: Chain,
    /// The conditions.
    pub matches: Vec<Match>,
    /// The action.
    pub action: Action,
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("meta l4proto tcp"),
            Self::Port(is, port) => write!(f, "tcp dport {is}{port}"),
            Self::From(interface) => write!(f, "iifname {interface}"),
            Self::Through(interface) => write!(f, "oifname {interface}"),
            Self::Source(is, range) => address(f, "saddr", *is, *range),
            Self::Destination(is, range) => address(f, "daddr", *is, *range),
            Self::User(is, user) => write!(f, "meta skuid {is}{user}"),
            Self::Group(is, group) => write!(f, "meta skgid {is}{group}"),
        }
    }
}

/// A single address without its prefix length, as nft writes it.
fn address(f: &mut fmt::Formatter<'_>, field: &str, is: Is, range: IpNet) -> fmt::Result {
    let family = if range.addr().is_ipv4() { "ip" } else { "ip6" };
    if range.prefix_len() == 0 {
        // Every packet of the family.
        let family = if range.addr().is_ipv4() { "ipv4" } else { "ipv6" };
        return write!(f, "meta nfproto {is}{family}");
    }
    write!(f, "{family} {field} {is}{}", range.addr())?;
    if range.prefix_len() < range.max_prefix_len() {
        write!(f, "/{}", range.prefix_len())?;
    }
    Ok(())
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        match self.action {
            Action::Return => f.write_str("return"),
            Action::Redirect(port) => write!(f, "redirect to :{port}"),
        }
    }
}

/// The table with its rules, as `nft -f` reads it and `nft list table` shows it.
pub fn print(rules: &[Rule]) -> String {
    let mut text = format!("table inet {TABLE} {{\n");
    for (index, chain) in Chain::ALL.into_iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let name = chain.name();
        let priority = match chain {
            Chain::Prerouting => "dstnat",
            Chain::Output => "-100",
        };
        text += &format!(
            "\tchain {name} {{\n\t\ttype nat hook {name} priority {priority}; policy accept;\n"
        );
        for rule in rules.iter().filter(|rule| rule.chain == chain) {
            text += &format!("\t\t{rule}\n");
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

/// The rules for these settings.
pub fn rules(args: &InitArgs) -> Vec<Rule> {
    let mut build = Build { args, rules: Vec::new() };
    build.prerouting();
    build.output();
    build.rules
}

/// The address that the proxy calls the application from, and the pod's own loopback address, in both families.
fn fixed(v4: &str, v6: &str) -> [IpNet; 2] {
    [v4, v6].map(|text| text.parse().expect("a CIDR that is written here"))
}

struct Build<'a> {
    args: &'a InitArgs,
    rules: Vec<Rule>,
}

impl Build<'_> {
    fn add(&mut self, chain: Chain, matches: Vec<Match>, action: Action) {
        self.rules.push(Rule { chain, matches, action });
    }

    fn prerouting(&mut self) {
        let args = self.args;
        let chain = Chain::Prerouting;
        let outbound = Action::Redirect(args.outbound_port);
        let inbound = Action::Redirect(args.inbound_port);
        for interface in &args.exclude_interfaces.0 {
            self.add(chain, vec![Match::From(interface.clone())], Action::Return);
        }
        for interface in &args.virtual_interfaces.0 {
            let from = || Match::From(interface.clone());
            match &args.include_ranges {
                Ranges::All => self.add(chain, vec![from(), Match::Tcp], outbound),
                Ranges::Listed(ranges) => {
                    for Cidr(range) in ranges {
                        let to = Match::Destination(Is::Equal, *range);
                        self.add(chain, vec![from(), to, Match::Tcp], outbound);
                    }
                }
            }
            self.add(chain, vec![from()], Action::Return);
        }
        let port = |port: u16| vec![Match::Port(Is::Equal, port)];
        match &args.include_inbound {
            Ports::Listed(ports) if ports.is_empty() => return,
            Ports::All | Ports::Listed(_) => {}
        }
        self.add(chain, port(args.tunnel_port), Action::Return);
        for Port(excluded) in &args.exclude_inbound.0 {
            self.add(chain, port(*excluded), Action::Return);
        }
        match &args.include_inbound {
            Ports::All => self.add(chain, vec![Match::Tcp], inbound),
            Ports::Listed(ports) => {
                for Port(included) in ports {
                    self.add(chain, port(*included), inbound);
                }
            }
        }
    }

    fn output(&mut self) {
        let args = self.args;
        let chain = Chain::Output;
        let outbound = Action::Redirect(args.outbound_port);
        let through_lo = || Match::Through(Interface::loopback());
        for Port(excluded) in &args.exclude_outbound.0 {
            self.add(chain, vec![Match::Port(Is::Equal, *excluded)], Action::Return);
        }
        for interface in &args.exclude_interfaces.0 {
            self.add(chain, vec![Match::Through(interface.clone())], Action::Return);
        }
        // The proxy calls the application.
        for source in fixed("127.0.0.6/32", "::6/128") {
            let matches = vec![through_lo(), Match::Source(Is::Equal, source)];
            self.add(chain, matches, Action::Return);
        }
        for user in &args.uids {
            self.own(|is| Match::User(is, *user));
        }
        let gids = if args.gids.is_empty() { &args.uids } else { &args.gids };
        for group in gids {
            self.own(|is| Match::Group(is, *group));
        }
        for loopback in fixed("127.0.0.1/32", "::1/128") {
            let matches = vec![Match::Destination(Is::Equal, loopback)];
            self.add(chain, matches, Action::Return);
        }
        for Cidr(excluded) in &args.exclude_ranges.0 {
            let matches = vec![Match::Destination(Is::Equal, *excluded)];
            self.add(chain, matches, Action::Return);
        }
        match &args.include_outbound {
            Ports::All => self.add(chain, vec![Match::Tcp], outbound),
            Ports::Listed(ports) => {
                for Port(included) in ports {
                    self.add(chain, vec![Match::Port(Is::Equal, *included)], outbound);
                }
            }
        }
        match &args.include_ranges {
            // What is captured already.
            _ if args.include_outbound == Ports::All => {}
            Ranges::All => self.add(chain, vec![Match::Tcp], outbound),
            Ranges::Listed(ranges) => {
                for Cidr(range) in ranges {
                    let to = Match::Destination(Is::Equal, *range);
                    self.add(chain, vec![to, Match::Tcp], outbound);
                }
            }
        }
    }

    /// What the proxy itself sends: to the pod's own address it comes back in, as from another pod; elsewhere it goes. What
    /// the application sends to itself is not the proxy's affair.
    fn own(&mut self, owner: impl Fn(Is) -> Match) {
        let chain = Chain::Output;
        let through_lo = || Match::Through(Interface::loopback());
        for loopback in fixed("127.0.0.1/32", "::1/128") {
            let matches = vec![
                through_lo(),
                Match::Destination(Is::Not, loopback),
                Match::Port(Is::Not, self.args.tunnel_port),
                owner(Is::Equal),
            ];
            self.add(chain, matches, Action::Redirect(self.args.inbound_port));
        }
        self.add(chain, vec![through_lo(), owner(Is::Not)], Action::Return);
        self.add(chain, vec![owner(Is::Equal)], Action::Return);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(flags: &[&str], chain: Chain) -> Vec<String> {
        let args = InitArgs::parse(flags).unwrap();
        let rules = rules(&args);
        rules.iter().filter(|rule| rule.chain == chain).map(ToString::to_string).collect()
    }

    #[test]
    fn by_default_all_but_the_proxys_own_is_captured() {
        assert_eq!(
            printed(&[], Chain::Prerouting),
            [
                "tcp dport 15008 return",
                "tcp dport 15090 return",
                "tcp dport 15021 return",
                "tcp dport 15020 return",
                "meta l4proto tcp redirect to :15006",
            ]
        );
        assert_eq!(
            printed(&[], Chain::Output),
            [
                "oifname \"lo\" ip saddr 127.0.0.6 return",
                "oifname \"lo\" ip6 saddr ::6 return",
                "oifname \"lo\" ip daddr != 127.0.0.1 tcp dport != 15008 meta skuid 1337 redirect to :15006",
                "oifname \"lo\" ip6 daddr != ::1 tcp dport != 15008 meta skuid 1337 redirect to :15006",
                "oifname \"lo\" meta skuid != 1337 return",
                "meta skuid 1337 return",
                "oifname \"lo\" ip daddr != 127.0.0.1 tcp dport != 15008 meta skgid 1337 redirect to :15006",
                "oifname \"lo\" ip6 daddr != ::1 tcp dport != 15008 meta skgid 1337 redirect to :15006",
                "oifname \"lo\" meta skgid != 1337 return",
                "meta skgid 1337 return",
                "ip daddr 127.0.0.1 return",
                "ip6 daddr ::1 return",
                "meta l4proto tcp redirect to :15001",
            ]
        );
    }

    #[test]
    fn ports_addresses_and_interfaces_are_included_and_excluded() {
        let flags = [
            "-i",
            "10.0.0.0/8,fd00::/8",
            "-x",
            "10.9.0.1",
            "-b",
            "80,8080",
            "-d",
            "9000",
            "-q",
            "3306",
            "-o",
            "25",
            "-c",
            "tun0,cni+",
            "-k",
            "vm0",
        ];
        assert_eq!(
            printed(&flags, Chain::Prerouting),
            [
                "iifname \"tun0\" return",
                "iifname \"cni*\" return",
                "iifname \"vm0\" ip daddr 10.0.0.0/8 meta l4proto tcp redirect to :15001",
                "iifname \"vm0\" ip6 daddr fd00::/8 meta l4proto tcp redirect to :15001",
                "iifname \"vm0\" return",
                "tcp dport 15008 return",
                "tcp dport 9000 return",
                "tcp dport 80 redirect to :15006",
                "tcp dport 8080 redirect to :15006",
            ]
        );
        let output = printed(&flags, Chain::Output);
        assert_eq!(
            output[..3],
            ["tcp dport 25 return", "oifname \"tun0\" return", "oifname \"cni*\" return"]
        );
        assert_eq!(
            output[output.len() - 4..],
            [
                "ip daddr 10.9.0.1 return",
                "tcp dport 3306 redirect to :15001",
                "ip daddr 10.0.0.0/8 meta l4proto tcp redirect to :15001",
                "ip6 daddr fd00::/8 meta l4proto tcp redirect to :15001",
            ]
        );
    }

    #[test]
    fn without_inbound_ports_nothing_that_comes_in_is_captured() {
        assert_eq!(printed(&["-b", ""], Chain::Prerouting), Vec::<String>::new());
        let none = printed(&["-i", ""], Chain::Output);
        assert_eq!(none.last().map(String::as_str), Some("ip6 daddr ::1 return"));
    }

    #[test]
    fn all_outbound_ports_are_captured_whatever_the_address() {
        let all = printed(&["-q", "*", "-i", "10.0.0.0/8", "-x", "10.9.0.1"], Chain::Output);
        assert_eq!(
            all[all.len() - 2..],
            ["ip daddr 10.9.0.1 return", "meta l4proto tcp redirect to :15001"]
        );
    }
}

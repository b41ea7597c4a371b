//! The rules in the kernel: written in one transaction, and read back to be compared.
//!
//! Source: Linux `include/uapi/linux/netfilter/nf_tables.h`. Everything is in the table `inet weft`, which is ours alone.

use ipnet::IpNet;

use super::{
    netlink::{
        APPEND, Attributes, Batch, CREATE, DUMP, NetlinkError, REQUEST, Socket, attribute,
        attributes, text,
    },
    rules::{Action, Chain, Is, Match, Rule, TABLE},
};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;

/// `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;

/// The register that values are compared in; register 0 is the verdict's.
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
/// `NFT_RETURN`, as the kernel's signed number.
const RETURN: u32 = (-5_i32).cast_unsigned();

/// What the kernel's rules lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A chain, or it hangs elsewhere.
    Chain(Chain),
    /// A rule that should be at this place.
    Rule {
        /// Its place, from 1.
        position: usize,
        /// The rule.
        rule: Rule,
    },
    /// There are more rules than there should be.
    TooMany {
        /// In this chain.
        chain: Chain,
        /// So many more.
        surplus: usize,
    },
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chain(chain) => {
                write!(f, "table inet {TABLE} has no nat chain {}", chain.name())
            }
            Self::Rule { position, rule } => {
                write!(f, "chain {}: rule {position} is missing: {rule}", rule.chain.name())
            }
            Self::TooMany { chain, surplus } => {
                write!(f, "chain {}: {surplus} rules too many", chain.name())
            }
        }
    }
}

/// Replaces our table by one with these rules. All of it, or nothing.
///
/// # Errors
/// No rights (NET_ADMIN), or a kernel without nf_tables.
pub fn apply(socket: &Socket, rules: &[Rule]) -> Result<(), NetlinkError> {
    let mut batch = Batch::default();
    let bracket = [0, 0, 0, u8::try_from(SUBSYSTEM).unwrap_or_default()];
    batch.message(BATCH_BEGIN, REQUEST, &bracket, |_| {});
    // Made first, so that there is one to delete.
    message(&mut batch, NEW_TABLE, CREATE, |list| {
        list.text(1, TABLE);
    });
    message(&mut batch, DELETE_TABLE, 0, |list| {
        list.text(1, TABLE);
    });
    message(&mut batch, NEW_TABLE, CREATE, |list| {
        list.text(1, TABLE);
    });
    for chain in Chain::ALL {
        message(&mut batch, NEW_CHAIN, CREATE, |list| {
            list.text(1, TABLE).text(3, chain.name()).nested(4, |hook| {
                hook.number(1, hook_number(chain)).number(2, Chain::PRIORITY.cast_unsigned());
            });
            list.text(7, "nat");
        });
    }
    for rule in rules {
        message(&mut batch, NEW_RULE, CREATE | APPEND, |list| {
            list.text(1, TABLE).text(2, rule.chain.name());
            list.bytes(4, &expressions(rule));
        });
    }
    batch.message(BATCH_END, REQUEST, &bracket, |_| {});
    socket.send(&batch)
}

/// Compares the kernel's rules with these.
///
/// # Errors
/// No rights, or a kernel without nf_tables.
pub fn check(socket: &Socket, rules: &[Rule]) -> Result<Vec<Missing>, NetlinkError> {
    let hooked = chains(socket)?;
    let mut missing = Vec::new();
    for chain in Chain::ALL {
        if !hooked.contains(&chain) {
            missing.push(Missing::Chain(chain));
            continue;
        }
        let wanted: Vec<&Rule> = rules.iter().filter(|rule| rule.chain == chain).collect();
        let found = held(socket, chain)?;
        for (index, rule) in wanted.iter().enumerate() {
            let same = found.get(index).is_some_and(|found| contains(found, &expressions(rule)));
            if !same {
                missing.push(Missing::Rule { position: index + 1, rule: (*rule).clone() });
            }
        }
        if found.len() > wanted.len() {
            missing.push(Missing::TooMany { chain, surplus: found.len() - wanted.len() });
        }
    }
    Ok(missing)
}

/// Without a demand for acknowledgement: those of a few hundred rules overflow the socket, and a refusal comes anyway.
fn message(batch: &mut Batch, kind: u16, flags: u16, attributes: impl FnOnce(&mut Attributes<'_>)) {
    batch.message((SUBSYSTEM << 8) | kind, REQUEST | flags, &[INET, 0, 0, 0], attributes);
}

fn hook_number(chain: Chain) -> u32 {
    match chain {
        Chain::Prerouting => 0,
        Chain::Output => 3,
    }
}

/// The chains of our table that hang where they should.
fn chains(socket: &Socket) -> Result<Vec<Chain>, NetlinkError> {
    let mut batch = Batch::default();
    let kind = (SUBSYSTEM << 8) | GET_CHAIN;
    batch.message(kind, REQUEST | DUMP, &[INET, 0, 0, 0], |_| {});
    let answers = socket.dump(&batch)?;
    let is = |body: &[u8], chain: Chain| {
        let list = attributes(body.get(4..).unwrap_or_default());
        let hook = attributes(attribute(&list, 4).unwrap_or_default());
        attribute(&list, 1).map(text) == Some(TABLE.as_bytes())
            && attribute(&list, 3).map(text) == Some(chain.name().as_bytes())
            && attribute(&list, 7).map(text) == Some(b"nat")
            && attribute(&hook, 1) == Some(&hook_number(chain).to_be_bytes()[..])
            && attribute(&hook, 2) == Some(&Chain::PRIORITY.to_be_bytes()[..])
    };
    let held = |chain: &Chain| answers.iter().any(|answer| is(&answer.body, *chain));
    Ok(Chain::ALL.into_iter().filter(held).collect())
}

/// The expressions of a chain's rules, in order.
fn held(socket: &Socket, chain: Chain) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let mut batch = Batch::default();
    let kind = (SUBSYSTEM << 8) | GET_RULE;
    batch.message(kind, REQUEST | DUMP, &[INET, 0, 0, 0], |list| {
        list.text(1, TABLE).text(2, chain.name());
    });
    let answers = socket.dump(&batch)?;
    let of_chain = |body: &[u8]| {
        let list = attributes(body.get(4..).unwrap_or_default());
        let ours = attribute(&list, 1).map(text) == Some(TABLE.as_bytes())
            && attribute(&list, 2).map(text) == Some(chain.name().as_bytes());
        ours.then(|| attribute(&list, 4).unwrap_or_default().to_vec())
    };
    Ok(answers.iter().filter_map(|answer| of_chain(&answer.body)).collect())
}

/// Whether the kernel's expressions are the wanted ones. The kernel may say more of each than was asked for.
fn contains(found: &[u8], wanted: &[u8]) -> bool {
    let (found, wanted) = (attributes(found), attributes(wanted));
    found.len() == wanted.len()
        && found.iter().zip(&wanted).all(|((_, found), (_, wanted))| {
            let (found, wanted) = (attributes(found), attributes(wanted));
            let data = |list: &[(u16, &[u8])]| attribute(list, 2).unwrap_or_default().to_vec();
            let (found_data, wanted_data) = (data(&found), data(&wanted));
            let found_data = attributes(&found_data);
            attribute(&found, 1).map(text) == attribute(&wanted, 1).map(text)
                && attributes(&wanted_data).iter().all(|wanted| found_data.contains(wanted))
        })
}

/// A rule's list of expressions.
fn expressions(rule: &Rule) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut list = Expressions(Attributes::new(&mut bytes));
    for condition in &rule.matches {
        list.condition(condition);
    }
    match rule.action {
        Action::Return => list.expression("immediate", |data| {
            data.number(1, VERDICT_REGISTER).nested(2, |data| {
                data.nested(2, |verdict| {
                    verdict.number(1, RETURN);
                });
            });
        }),
        Action::Redirect(port) => {
            list.expression("immediate", |data| {
                data.number(1, REGISTER).nested(2, |data| {
                    data.bytes(1, &port.to_be_bytes());
                });
            });
            list.expression("redir", |data| {
                data.number(1, REGISTER);
            });
        }
    }
    bytes
}

/// What `meta` knows of a packet.
#[derive(Clone, Copy)]
enum Meta {
    InName = 6,
    OutName = 7,
    User = 10,
    Group = 11,
    Family = 15,
    Transport = 16,
}

/// Headers of a packet.
#[derive(Clone, Copy)]
enum Header {
    Network = 1,
    Transport = 2,
}

struct Expressions<'a>(Attributes<'a>);

impl Expressions<'_> {
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
        self.0.nested(1, |element| {
            element.text(1, name).nested(2, data);
        });
    }

    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::Tcp => self.meta(Meta::Transport, Is::Equal, &[TCP]),
            Match::Port(is, port) => {
                self.meta(Meta::Transport, Is::Equal, &[TCP]);
                self.load(Header::Transport, 2, 2);
                self.compare(*is, &port.to_be_bytes());
            }
            Match::From(interface) => self.meta(Meta::InName, Is::Equal, &interface.bytes()),
            Match::Through(interface) => self.meta(Meta::OutName, Is::Equal, &interface.bytes()),
            Match::Source(is, range) => self.address(*is, *range, Side::Source),
            Match::Destination(is, range) => self.address(*is, *range, Side::Destination),
            // The kernel keeps these two as its own numbers, not in network order.
            Match::User(is, user) => self.meta(Meta::User, *is, &user.to_ne_bytes()),
            Match::Group(is, group) => self.meta(Meta::Group, *is, &group.to_ne_bytes()),
        }
    }

    fn address(&mut self, is: Is, range: IpNet, side: Side) {
        let (family, address, mask, offset) = match range {
            IpNet::V4(range) => (
                IPV4,
                range.network().octets().to_vec(),
                range.netmask().octets().to_vec(),
                if side == Side::Source { 12 } else { 16 },
            ),
            IpNet::V6(range) => (
                IPV6,
                range.network().octets().to_vec(),
                range.netmask().octets().to_vec(),
                if side == Side::Source { 8 } else { 24 },
            ),
        };
        if range.prefix_len() == 0 {
            return self.meta(Meta::Family, is, &[family]);
        }
        self.meta(Meta::Family, Is::Equal, &[family]);
        let length = u32::try_from(address.len()).unwrap_or(u32::MAX);
        self.load(Header::Network, offset, length);
        if range.prefix_len() < range.max_prefix_len() {
            self.expression("bitwise", |data| {
                data.number(1, REGISTER).number(2, REGISTER).number(3, length);
                data.nested(4, |data| {
                    data.bytes(1, &mask);
                });
                data.nested(5, |data| {
                    data.bytes(1, &vec![0; mask.len()]);
                });
            });
        }
        self.compare(is, &address);
    }

    fn meta(&mut self, key: Meta, is: Is, value: &[u8]) {
        self.expression("meta", |data| {
            data.number(1, REGISTER).number(2, key as u32);
        });
        self.compare(is, value);
    }

    fn load(&mut self, header: Header, offset: u32, length: u32) {
        self.expression("payload", |data| {
            data.number(1, REGISTER).number(2, header as u32);
            data.number(3, offset).number(4, length);
        });
    }

    fn compare(&mut self, is: Is, value: &[u8]) {
        let operator = match is {
            Is::Equal => 0,
            Is::Not => 1,
        };
        self.expression("cmp", |data| {
            data.number(1, REGISTER).number(2, operator).nested(3, |data| {
                data.bytes(1, value);
            });
        });
    }
}

/// Which of a packet's addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{rules::rules, settings::InitArgs};

    #[test]
    fn a_rule_is_told_from_every_other() {
        let flags = ["-x", "10.0.0.0/8,10.0.0.0/9,fd00::/8", "-o", "25,26", "-c", "tun0,tun+"];
        let rules = rules(&InitArgs::parse(&flags).unwrap());
        for a in &rules {
            for b in &rules {
                let same = contains(&expressions(a), &expressions(b));
                assert_eq!(same, a.matches == b.matches && a.action == b.action, "{a} / {b}");
            }
        }
    }

    #[test]
    fn the_kernel_may_say_more_but_not_less() {
        let rules = rules(&InitArgs::parse(&[]).unwrap());
        let wanted = expressions(&rules[0]);
        let mut more = Vec::new();
        let mut list = Attributes::new(&mut more);
        for (index, (kind, element)) in attributes(&wanted).into_iter().enumerate() {
            let mut element = element.to_vec();
            if index == 0 {
                // The last attribute is the data; one more in it.
                let name = attributes(&element)[0].1.to_vec();
                let mut data = attributes(&element)[1].1.to_vec();
                Attributes::new(&mut data).number(99, 1);
                element.clear();
                Attributes::new(&mut element).bytes(1, &name).bytes(2, &data);
            }
            list.bytes(kind, &element);
        }
        assert!(contains(&more, &wanted));
        assert!(!contains(&wanted, &more));
        assert!(!contains(&[], &wanted));
    }
}

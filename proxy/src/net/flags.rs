//! Response flags: Envoy's short names for what went wrong with a request or connection.
//!
//! Set by the router, the filters and the connection handling; read by the access log and the metrics.

use std::fmt;

/// A set of response flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags(u32);

/// Bit, short name, in the order in which Envoy prints them.
const NAMES: [(u32, &str); 19] = [
    (1 << 0, "UH"),
    (1 << 1, "UF"),
    (1 << 2, "UO"),
    (1 << 3, "NR"),
    (1 << 4, "URX"),
    (1 << 5, "NC"),
    (1 << 6, "DT"),
    (1 << 7, "DC"),
    (1 << 8, "LR"),
    (1 << 9, "UR"),
    (1 << 10, "UC"),
    (1 << 11, "UT"),
    (1 << 12, "DI"),
    (1 << 13, "FI"),
    (1 << 14, "RL"),
    (1 << 15, "UAEX"),
    (1 << 16, "DPE"),
    (1 << 17, "UPE"),
    (1 << 18, "SI"),
];

impl ResponseFlags {
    /// Nothing went wrong.
    pub const NONE: Self = Self(0);
    /// No healthy upstream.
    pub const UH: Self = Self(1 << 0);
    /// Upstream connection failure.
    pub const UF: Self = Self(1 << 1);
    /// Upstream overflow (circuit breaking).
    pub const UO: Self = Self(1 << 2);
    /// No route.
    pub const NR: Self = Self(1 << 3);
    /// Upstream retry limit exceeded.
    pub const URX: Self = Self(1 << 4);
    /// No such cluster.
    pub const NC: Self = Self(1 << 5);
    /// Downstream connection reached its longest life.
    pub const DT: Self = Self(1 << 6);
    /// Downstream connection termination.
    pub const DC: Self = Self(1 << 7);
    /// Local reset.
    pub const LR: Self = Self(1 << 8);
    /// Upstream reset.
    pub const UR: Self = Self(1 << 9);
    /// Upstream connection termination.
    pub const UC: Self = Self(1 << 10);
    /// Upstream request timeout.
    pub const UT: Self = Self(1 << 11);
    /// Delay injected.
    pub const DI: Self = Self(1 << 12);
    /// Fault injected.
    pub const FI: Self = Self(1 << 13);
    /// Rate limited locally.
    pub const RL: Self = Self(1 << 14);
    /// Refused by external authorization.
    pub const UAEX: Self = Self(1 << 15);
    /// Downstream protocol error.
    pub const DPE: Self = Self(1 << 16);
    /// Upstream protocol error.
    pub const UPE: Self = Self(1 << 17);
    /// Stream idle timeout.
    pub const SI: Self = Self(1 << 18);

    /// Adds flags.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Takes flags away.
    pub fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// Whether all of the other's flags are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether none is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a flag of this short name is set.
    pub fn has_name(self, name: &str) -> bool {
        NAMES.iter().any(|(bit, short)| self.0 & bit != 0 && *short == name)
    }
}

impl std::ops::BitOr for ResponseFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for ResponseFlags {
    /// Short names separated by commas, or `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (bit, name) in NAMES {
            if self.0 & bit != 0 {
                if !first {
                    f.write_str(",")?;
                }
                f.write_str(name)?;
                first = false;
            }
        }
        if first { f.write_str("-") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_as_envoys_short_names() {
        assert_eq!(ResponseFlags::NONE.to_string(), "-");
        assert_eq!((ResponseFlags::URX | ResponseFlags::UF).to_string(), "UF,URX");
        assert!((ResponseFlags::URX | ResponseFlags::UF).has_name("URX"));
        assert!(!ResponseFlags::UF.has_name("URX"));
    }
}

//! What a check found, for people.

use std::fmt;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gravity {
    /// As it should be.
    Fine,
    /// Worth knowing, or not checked.
    Note,
    /// Works, and is probably not meant.
    Warning,
    /// Does not work.
    Error,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How grave it is.
    pub gravity: Gravity,
    /// What was found.
    pub text: String,
    /// What to do; empty when nothing.
    pub advice: String,
}

/// Findings about one thing.
#[derive(Clone, Debug)]
pub struct Section {
    title: &'static str,
    findings: Vec<Finding>,
}

impl Section {
    /// A section without findings.
    pub fn new(title: &'static str) -> Self {
        Self { title, findings: Vec::new() }
    }

    /// Something is as it should be.
    pub fn fine(&mut self, text: impl Into<String>) {
        self.add(Gravity::Fine, text, "");
    }

    /// Something is worth knowing, or could not be checked.
    pub fn note(&mut self, text: impl Into<String>) {
        self.add(Gravity::Note, text, "");
    }

    /// Something works, and is probably not meant.
    pub fn warning(&mut self, text: impl Into<String>, advice: impl Into<String>) {
        self.add(Gravity::Warning, text, advice);
    }

    /// Something does not work.
    pub fn error(&mut self, text: impl Into<String>, advice: impl Into<String>) {
        self.add(Gravity::Error, text, advice);
    }

    fn add(&mut self, gravity: Gravity, text: impl Into<String>, advice: impl Into<String>) {
        let (text, advice) = (text.into(), advice.into());
        self.findings.push(Finding { gravity, text, advice });
    }

    /// What was found, in order.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether nothing is wrong so far.
    pub fn is_fine(&self) -> bool {
        self.findings.iter().all(|f| matches!(f.gravity, Gravity::Fine | Gravity::Note))
    }
}

/// All sections.
#[derive(Clone, Debug, Default)]
pub struct Report {
    sections: Vec<Section>,
}

impl Report {
    /// Adds a section; one that found nothing is left out.
    pub fn add(&mut self, section: Section) {
        if !section.findings.is_empty() {
            self.sections.push(section);
        }
    }

    /// How many things do not work.
    pub fn errors(&self) -> usize {
        self.count(Gravity::Error)
    }

    fn count(&self, gravity: Gravity) -> usize {
        let findings = self.sections.iter().flat_map(Section::findings);
        findings.filter(|finding| finding.gravity == gravity).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            writeln!(f, "{}", section.title)?;
            for Finding { gravity, text, advice } in section.findings() {
                let mark = match gravity {
                    Gravity::Fine => "ok",
                    Gravity::Note => "-",
                    Gravity::Warning => "WARNING",
                    Gravity::Error => "ERROR",
                };
                writeln!(f, "  {mark:<7} {text}")?;
                if !advice.is_empty() {
                    writeln!(f, "          {advice}")?;
                }
            }
        }
        let count = |number: usize, what: &str| {
            format!("{number} {what}{}", if number == 1 { "" } else { "s" })
        };
        let (errors, warnings) = (self.errors(), self.count(Gravity::Warning));
        writeln!(f, "{}, {}", count(errors, "error"), count(warnings, "warning"))
    }
}

//! Kubernetes' quantities: `100m`, `1.5`, `128Mi`, `1e3`.

/// The amount that a text stands for; `None` if it is not a quantity. Exact enough to compare two of them.
pub(crate) fn parse(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let well_formed =
        number.bytes().any(|b| b.is_ascii_digit()) && number.matches('.').count() <= 1;
    if !well_formed {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            10f64.powi(exponent.parse::<i8>().ok()?.into())
        }
    };
    Some(number * factor)
}

/// Why a text cannot be an amount of a resource.
pub(crate) fn check(text: &str) -> Result<(), String> {
    match parse(text) {
        Some(_) => Ok(()),
        None => Err(format!("{text:?} is not a quantity such as 100m, 1.5 or 128Mi")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_told_from_other_texts() {
        for (text, amount) in [
            ("0", 0.0),
            ("100m", 0.1),
            ("1.5", 1.5),
            (".5", 0.5),
            ("2.", 2.0),
            ("128Mi", 134_217_728.0),
            ("1Gi", 1_073_741_824.0),
            ("2k", 2000.0),
            ("1e3", 1000.0),
            ("1E-1", 0.1),
            ("3E", 3e18),
        ] {
            assert_eq!(parse(text), Some(amount), "{text}");
        }
        for text in ["", "abc", "1 Gi", "1gb", "-1", "1.2.3", ".", "Mi", "1ee3", "100mm", "1K"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

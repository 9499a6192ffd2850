//! `bulkhead explain`: a rule, why it exists, and an example on each side of it; or the list of all rules.

use std::fmt::Write;

use bulkhead_config::{Rule, Severity};
use serde_json::json;

use crate::error::{Error, Result};

/// The rule of this code, or every rule, for a person or as JSON.
///
/// # Errors
/// No rule has the code.
pub fn explain(code: Option<&str>, as_json: bool) -> Result<String> {
    let Some(code) = code else {
        return Ok(if as_json { list_json() } else { list() });
    };
    if let Some(proven) = bulkhead_audit::Rule::of_code(code) {
        return Ok(audited(proven, as_json));
    }
    let numbered = format!("BH{code:0>4}");
    let rule = Rule::of_code(code).or_else(|| Rule::of_code(&numbered));
    let rule = rule.ok_or_else(|| unknown(code))?;
    Ok(if as_json { format!("{:#}\n", rule_json(rule)) } else { page(rule) })
}

/// A rule of the audit. No file breaks one: a fault is the compiler's, or somebody changed the image.
fn audited(rule: bulkhead_audit::Rule, as_json: bool) -> String {
    const WHY: &str = "The audit proves it from the bytes of a built image, with no code of the planner. No system file \
                       breaks it: the compiler has a defect, or the image was changed after it was built.";
    if as_json {
        let value = json!({
            "code": rule.code(), "severity": "fault", "rule": rule.statement(), "why": WHY,
        });
        return format!("{value:#}\n");
    }
    format!("{}: {}\n\n{}\n", rule.code(), rule.statement(), wrapped(WHY))
}

fn unknown(code: &str) -> Error {
    let (first, last) = (Rule::ALL.first(), Rule::ALL.last());
    let range = first.zip(last).map(|(first, last)| format!("{} to {}", first.code(), last.code()));
    Error::refused(
        format!("there is no rule {code}"),
        format!("the codes go from {}, with gaps", range.unwrap_or_default()),
        "copy the code from the message, such as BH0301, or AU21 of the audit; `bulkhead explain` alone lists all",
    )
}

fn list() -> String {
    let mut out = String::new();
    for rule in Rule::ALL {
        // Writing into a string cannot fail.
        let _ = writeln!(out, "{}  {}{}", rule.code(), rule.statement(), mark(*rule));
    }
    let _ = writeln!(out, "\n{} rules. `bulkhead explain CODE` says more of one.", Rule::ALL.len());
    out
}

const fn mark(rule: Rule) -> &'static str {
    match rule.severity() {
        Severity::Error => "",
        Severity::Warning => " (a warning)",
    }
}

fn page(rule: Rule) -> String {
    let explanation = rule.explanation();
    let verb = match rule.severity() {
        Severity::Error => "Rejected",
        Severity::Warning => "Warned of",
    };
    format!(
        "{}: {}{}\n\n{}\n\n{verb} (config/tests/reject/{}):\n\n{}\n\nAccepted, with this change:\n\n{}\n",
        rule.code(),
        rule.statement(),
        mark(rule),
        wrapped(explanation.why),
        explanation.file,
        indented(&explanation.shown_bad()),
        indented(&explanation.shown_good()),
    )
}

/// Widest line of running text, in characters.
const WIDTH: usize = 100;

fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + word.chars().count() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

fn indented(text: &str) -> String {
    let lines: Vec<_> = text
        .lines()
        .map(|line| if line.is_empty() { String::new() } else { format!("    {line}") })
        .collect();
    lines.join("\n")
}

fn list_json() -> String {
    let rules: Vec<_> = Rule::ALL.iter().map(|rule| rule_json(*rule)).collect();
    format!("{:#}\n", json!({ "rules": rules }))
}

fn rule_json(rule: Rule) -> serde_json::Value {
    let explanation = rule.explanation();
    json!({
        "code": rule.code(),
        "severity": rule.severity().word(),
        "rule": rule.statement(),
        "why": explanation.why,
        "file": explanation.file,
        "bad": explanation.bad,
        "good": explanation.good(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_explained_with_both_examples() {
        let page = explain(Some("bh0301"), false).unwrap();
        assert!(page.starts_with("BH0301: A core without windows belongs to one partition.\n"));
        let (bad, good) = page.split_once("Accepted").unwrap();
        assert!(bad.contains("    cores = [1]\n") && good.contains("    cores = [2]\n"), "{page}");
        assert!(page.lines().all(|line| line.chars().count() <= 120), "{page}");
    }

    #[test]
    fn all_rules_are_listed() {
        let list = explain(None, false).unwrap();
        assert!(Rule::ALL.iter().all(|rule| list.contains(rule.code())));
        let json: serde_json::Value = serde_json::from_str(&explain(None, true).unwrap()).unwrap();
        assert_eq!(json["rules"].as_array().unwrap().len(), Rule::ALL.len());
        assert!(json["rules"][0]["good"].as_str().unwrap().contains("[system]"));
    }

    #[test]
    fn a_rule_of_the_audit_is_explained_and_a_bare_number_is_enough() {
        let page = explain(Some("au21"), false).unwrap();
        assert!(page.starts_with("AU21: Each page of the machine's memory"), "{page}");
        let json: serde_json::Value =
            serde_json::from_str(&explain(Some("AU21"), true).unwrap()).unwrap();
        assert_eq!(json["severity"], "fault");
        assert!(explain(Some("402"), false).unwrap().starts_with("BH0402"));
    }

    #[test]
    fn an_unknown_code_is_refused_with_a_remedy() {
        let error = explain(Some("BH9999"), false).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("lists all"), "{error}");
    }
}

//! Labels: the annotations that users set, without those that belong to a format.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::oci::Manifest;

/// Annotations with these prefixes determine how an artifact is read, so they are not labels.
const RESERVED: [&str; 2] = ["io.oci-sync.", "dev.ocifs."];

/// Whether a key belongs to a format.
pub fn is_reserved(key: &str) -> bool {
    RESERVED.iter().any(|prefix| key.starts_with(prefix))
}

/// The labels of a manifest.
pub fn of(manifest: &Manifest) -> BTreeMap<String, String> {
    let labels = manifest.annotations().iter().filter(|(key, _)| !is_reserved(key));
    labels.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A condition on labels: `KEY` exists, or `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelCondition {
    key: String,
    value: Option<String>,
}

impl LabelCondition {
    /// Whether the labels satisfy the condition.
    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(&self.key).is_some_and(|found| self.value.as_ref().is_none_or(|value| value == found))
    }
}

impl FromStr for LabelCondition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
        if key.is_empty() {
            return Err(format!("`{}` has no key; write KEY or KEY=VALUE", text.escape_debug()));
        }
        Ok(Self { key: key.to_owned(), value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_matched_by_key_or_by_key_and_value() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("empty".to_owned(), String::new())]);
        let holds = |text: &str| text.parse::<LabelCondition>().unwrap().holds(&labels);
        assert!(holds("app") && holds("app=web") && holds("empty") && holds("empty="));
        assert!(!holds("app=db") && !holds("other") && !holds("app=") && !holds("ap"));
        assert!("=x".parse::<LabelCondition>().is_err() && "".parse::<LabelCondition>().is_err());
    }
}

//! Showing states: what a step changed, not all that there is.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// The leaves of a value's `Debug` text by their paths: `workers[0].pc` is `Claim`, and so on.
///
/// Works on the text, so that no model has to say a second time what its state consists of.
pub(crate) fn leaves<S: Debug>(state: &S) -> BTreeMap<String, String> {
    let text = format!("{state:#?}");
    let mut found = BTreeMap::new();
    // The path of each open bracket, and how many values without names it has had.
    let mut open: Vec<(String, usize)> = vec![];
    for line in text.lines() {
        let line = line.trim().trim_end_matches(',');
        if matches!(line, "}" | "]" | ")") {
            open.pop();
            continue;
        }
        let (name, value) = match line.split_once(": ") {
            Some((name, value)) => (format!(".{name}"), value),
            None => match open.last_mut() {
                Some((_, count)) => {
                    *count += 1;
                    (format!("[{}]", *count - 1), line)
                }
                None => (String::new(), line),
            },
        };
        let path = open.last().map_or(String::new(), |(path, _)| path.clone()) + &name;
        let leaf = value.trim_end_matches(['{', '[', '(', ' ']);
        if !leaf.is_empty() {
            found.insert(path.clone(), leaf.to_owned());
        }
        if leaf.len() != value.len() {
            open.push((path, 0));
        }
    }
    found
}

/// What differs in `new`, as `path = value`.
pub(crate) fn changes(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> String {
    let changed = new.iter().filter(|&(path, value)| old.get(path) != Some(value));
    let shown: Vec<String> =
        changed.map(|(path, value)| format!("{} = {value}", path.trim_start_matches('.'))).collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    #[expect(dead_code, reason = "only shown")]
    enum Pc {
        Top,
        Claim { slot: u8 },
        Notify(u8),
    }

    #[derive(Debug)]
    #[expect(dead_code, reason = "only shown")]
    struct State {
        pcs: [Pc; 2],
        head: u8,
    }

    #[test]
    fn only_what_changed_is_shown() {
        let old = leaves(&State { pcs: [Pc::Top, Pc::Notify(1)], head: 0 });
        let new = leaves(&State { pcs: [Pc::Claim { slot: 1 }, Pc::Notify(2)], head: 0 });
        assert_eq!(changes(&old, &new), "pcs[0] = Claim, pcs[0].slot = 1, pcs[1][0] = 2");
        assert_eq!(changes(&new, &new), "");
    }
}

//! Which names are those of dropped files.

/// Names under which programs write what is to be renamed when it is whole, and files of editors.
const UNFINISHED: [&str; 7] = [".tmp", ".part", ".partial", ".filepart", ".crdownload", ".swp", "~"];

/// Whether a file with this name (without its folder) is left alone: it is hidden, or not whole yet.
pub fn is_ignored(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with('.') || UNFINISHED.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_names_are_left_alone() {
        for name in [".a.json", "a.json.tmp", "a.PART", "a.json~", ".sheaf-x.part", "b.crdownload"] {
            assert!(is_ignored(name), "{name}");
        }
        for name in ["a.json", "a.tmp.json", "part", "a.txt"] {
            assert!(!is_ignored(name), "{name}");
        }
    }
}

//! Variables in values: `${NAME}` and `${NAME:-default}`; `$$` is a dollar sign.

use std::fmt;

/// A value that cannot be filled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfilled {
    /// The variable is not set, and the value has no default for it.
    Unset(String),
    /// A `${` without its end, or nothing in between.
    Malformed(String),
}

impl fmt::Display for Unfilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset(name) => write!(f, "the variable {name} is not set where sheaf runs"),
            Self::Malformed(text) => write!(f, "{text:?} is not ${{NAME}} or ${{NAME:-default}}"),
        }
    }
}

impl Unfilled {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Unset(name) => Some(format!("set {name}, or give a default: ${{{name}:-…}}")),
            Self::Malformed(_) => Some("a dollar sign itself is $$".into()),
        }
    }
}

/// A value with its variables.
pub(super) fn fill(value: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, Unfilled> {
    let mut filled = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, dollar)) = rest.split_once('$') {
        filled.push_str(before);
        if let Some(behind) = dollar.strip_prefix('$') {
            filled.push('$');
            rest = behind;
            continue;
        }
        let Some(open) = dollar.strip_prefix('{') else {
            filled.push('$');
            rest = dollar;
            continue;
        };
        let malformed = || Unfilled::Malformed(format!("${dollar}"));
        let (inside, behind) = open.split_once('}').ok_or_else(malformed)?;
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(malformed());
        }
        let found = variable(name).filter(|found| default.is_none() || !found.is_empty());
        match (found, default) {
            (Some(found), _) => filled.push_str(&found),
            (None, Some(default)) => filled.push_str(default),
            (None, None) => return Err(Unfilled::Unset(name.to_owned())),
        }
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in() {
        let variable = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let fill = |value| fill(value, variable);
        assert_eq!(fill("x${A}y${A}"), Ok("x1y1".into()));
        assert_eq!(fill("${B:-two} ${EMPTY:-three} ${B:-}|${EMPTY}"), Ok("two three |".into()));
        assert_eq!(fill("5$ $$5 $A"), Ok("5$ $5 $A".into()));
        assert_eq!(fill("${B}"), Err(Unfilled::Unset("B".into())));
        assert!(matches!(fill("${A"), Err(Unfilled::Malformed(_))));
        assert!(matches!(fill("${}"), Err(Unfilled::Malformed(_))));
    }
}

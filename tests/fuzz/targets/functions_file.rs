//! `functions.toml`: no text panics its reader, and a manifest that comes out of it is one.
//!
//! The command is a program and no library; the files of it that read declarations are pure, and are compiled here as
//! they are.
#![no_main]

use std::{collections::BTreeMap, path::Path};

use libfuzzer_sys::fuzz_target;
use sheaf_api::stream::manifest_json;
use sheaf_core::Manifest;

#[allow(dead_code, unreachable_pub, reason = "the command uses all of it")]
#[path = "../../../client/cli/src/text.rs"]
mod text;

#[path = "."]
mod functions_file {
    use std::{collections::BTreeMap, path::Path};

    #[allow(dead_code, reason = "the command uses all of it")]
    #[path = "../../../client/cli/src/functions_file/declaration.rs"]
    mod declaration;
    #[allow(dead_code, reason = "the command uses all of it")]
    #[path = "../../../client/cli/src/functions_file/environment.rs"]
    mod environment;

    use sheaf_core::Manifest;
    use toml::Spanned;

    /// As in the command.
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Contents {
        #[serde(default)]
        functions: BTreeMap<String, Spanned<declaration::Declaration>>,
    }

    /// The manifests of a file, or what is wrong and where.
    pub(crate) fn read(text: &str) -> Option<BTreeMap<String, Manifest>> {
        let contents: Contents = toml::from_str(text).ok()?;
        let manifest = |(name, declared): (String, Spanned<declaration::Declaration>)| match declared
            .get_ref()
            .manifest(&name, Path::new("/nowhere"), declared.span())
        {
            Ok((manifest, _)) => Some((name, manifest)),
            Err(wrong) => {
                assert!(!wrong.message.is_empty());
                assert!(text.get(wrong.span.clone()).is_some(), "{:?} of {}", wrong.span, text.len());
                None
            }
        };
        Some(contents.functions.into_iter().filter_map(manifest).collect())
    }

    /// Fills a value from these variables.
    pub(crate) fn fill(value: &str, variables: &BTreeMap<&str, &str>) -> Option<String> {
        environment::fill(value, |name| variables.get(name).map(|value| (*value).to_owned())).ok()
    }
}

fuzz_target!(|text: &str| {
    for (name, manifest) in functions_file::read(text).unwrap_or_default() {
        assert_eq!(manifest.name.as_str(), name);
        let canonical = manifest_json(&manifest);
        assert_eq!(serde_json::from_slice::<Manifest>(&canonical).expect("canonical"), manifest);
        if manifest.check().is_ok() {
            let _ = (text::duration_ms(manifest.timeout_ms), text::bytes(manifest.memory_bytes_max));
        }
    }
    let _ = Path::new(text);
    let variables = BTreeMap::from([("A", "one"), ("EMPTY", "")]);
    if let Some(filled) = functions_file::fill(text, &variables) {
        assert!(filled.len() <= 3 * text.len(), "{text:?} became {} bytes", filled.len());
        if !text.contains('$') {
            assert_eq!(filled, text);
        }
    }
    let _ = (text::parse_duration(text), text::parse_deadline(text));
    if let Ok(bytes) = text::parse_bytes(text) {
        assert_eq!(text::parse_bytes(&bytes.to_string()), Ok(bytes));
    }
});

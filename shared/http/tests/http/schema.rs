//! As much of JSON Schema as the OpenAPI document uses, and stricter: a field that no schema names is an error.

use std::{cell::RefCell, collections::BTreeSet};

use serde::Serialize;
use serde_json::Value;

pub(crate) struct Document {
    pub(crate) value: Value,
    /// Fields met: the schema that names each, and its name.
    met: RefCell<BTreeSet<(String, String)>>,
}

impl Document {
    pub(crate) fn read(text: &str) -> Self {
        Self { value: serde_saphyr::from_str(text).unwrap(), met: RefCell::default() }
    }

    /// What a node stands for: itself, or what it refers to.
    pub(crate) fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        let Some(reference) = node.get("$ref").and_then(Value::as_str) else { return node };
        let found = reference.strip_prefix('#').and_then(|pointer| self.value.pointer(pointer));
        found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }

    /// Every reference leads somewhere.
    pub(crate) fn check_references(&self) {
        let mut nodes = vec![&self.value];
        while let Some(node) = nodes.pop() {
            match node {
                Value::Object(fields) => {
                    self.resolve(node);
                    nodes.extend(fields.values());
                }
                Value::Array(items) => nodes.extend(items),
                _ => (),
            }
        }
    }

    /// A value is what a named schema allows.
    pub(crate) fn check(&self, schema: &str, value: &Value) {
        let node = &self.value["components"]["schemas"][schema];
        assert!(node.is_object(), "there is no schema {schema}");
        if let Err(reason) = self.fits(schema, node, value) {
            panic!("{schema}: {reason}\nin {value:#}");
        }
    }

    /// Values are what a named schema allows, and together have every field that it and those under it name.
    pub(crate) fn check_all<T: Serialize>(&self, schema: &str, values: &[T]) {
        self.met.borrow_mut().clear();
        for value in values {
            self.check(schema, &serde_json::to_value(value).unwrap());
        }
        let met = self.met.borrow();
        let reached: BTreeSet<_> = met.iter().map(|(schema, _)| schema.clone()).collect();
        for reached in reached {
            let fields = self.value["components"]["schemas"][&reached]["properties"].as_object();
            for field in fields.into_iter().flat_map(|fields| fields.keys()) {
                assert!(met.contains(&(reached.clone(), field.clone())), "nothing has the field {field} of {reached}");
            }
        }
    }

    fn fits(&self, name: &str, node: &Value, value: &Value) -> Result<(), String> {
        if let Some(reference) = node.get("$ref").and_then(Value::as_str) {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return self.fits(name, self.resolve(node), value);
        }
        if let Some(options) = node.get("oneOf").and_then(Value::as_array) {
            let fitting = options.iter().filter(|option| self.fits(name, option, value).is_ok()).count();
            return (fitting == 1).then_some(()).ok_or(format!("{value} fits {fitting} of {options:?}"));
        }
        if !has_type(node, value) {
            return Err(format!("{value} is not of type {}", node["type"]));
        }
        if let Some(words) = node.get("enum").and_then(Value::as_array)
            && !words.contains(value)
        {
            return Err(format!("{value} is not one of {words:?}"));
        }
        match value {
            Value::Object(_) => self.object_fits(name, node, value),
            Value::Array(items) => {
                let of = |index: usize| node["prefixItems"].get(index).or(node.get("items"));
                let mut typed = items.iter().enumerate().filter_map(|(index, item)| Some((of(index)?, item)));
                typed.try_for_each(|(node, item)| self.fits(name, node, item))
            }
            _ => Ok(()),
        }
    }

    fn object_fits(&self, name: &str, node: &Value, value: &Value) -> Result<(), String> {
        let fields = value.as_object().expect("checked by the caller");
        let required = node["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Some(missing) = required.into_iter().find(|field| !fields.contains_key(*field)) {
            return Err(format!("{name} has no {missing}"));
        }
        for (field, value) in fields {
            if let Some(node) = node["properties"].get(field) {
                self.met.borrow_mut().insert((name.into(), field.clone()));
                self.fits(name, node, value).map_err(|reason| format!("{field}: {reason}"))?;
            } else if let Some(node) = node.get("additionalProperties") {
                self.fits(name, node, value)?;
            } else if node.get("type").is_some() {
                return Err(format!("{name} names no {field}"));
            }
        }
        Ok(())
    }
}

fn has_type(node: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    };
    match &node["type"] {
        Value::Null => true,
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        other => panic!("{other} is no type"),
    }
}

//! Update and condition expressions, built piece by piece. Every name goes through a placeholder, since DynamoDB reserves
//! hundreds of words and adds to them.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::item::Item;

/// A conditional update of one item.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Update {
    set: Vec<String>,
    remove: Vec<String>,
    add: Vec<String>,
    conditions: Vec<String>,
    names: HashMap<String, String>,
    values: Item,
}

impl Update {
    fn name(&mut self, name: &str) -> String {
        let placeholder = format!("#{name}");
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    /// Sets an attribute.
    pub(crate) fn set(&mut self, name: &str, value: AttributeValue) -> &mut Self {
        let (name, value) = (self.name(name), self.value(value));
        self.set.push(format!("{name} = {value}"));
        self
    }

    /// Adds a number to an attribute, or elements to a set.
    pub(crate) fn add(&mut self, name: &str, value: AttributeValue) -> &mut Self {
        let (name, value) = (self.name(name), self.value(value));
        self.add.push(format!("{name} {value}"));
        self
    }

    /// Removes an attribute.
    pub(crate) fn remove(&mut self, name: &str) -> &mut Self {
        let name = self.name(name);
        self.remove.push(name);
        self
    }

    /// Only if an attribute compares so with a value.
    pub(crate) fn only_if(&mut self, name: &str, comparison: &str, value: AttributeValue) -> &mut Self {
        let (name, value) = (self.name(name), self.value(value));
        self.conditions.push(format!("{name} {comparison} {value}"));
        self
    }

    /// Only if an attribute compares so with a value, or is not there.
    pub(crate) fn only_if_absent_or(&mut self, name: &str, comparison: &str, value: AttributeValue) -> &mut Self {
        let (name, value) = (self.name(name), self.value(value));
        self.conditions.push(format!("(attribute_not_exists({name}) OR {name} {comparison} {value})"));
        self
    }

    /// Only if an attribute is less than one value or greater than another.
    pub(crate) fn only_if_outside(&mut self, name: &str, from: AttributeValue, to: AttributeValue) -> &mut Self {
        let name = self.name(name);
        let [from, to] = [from, to].map(|value| self.value(value));
        self.conditions.push(format!("({name} < {from} OR {name} > {to})"));
        self
    }

    /// Only if an attribute is one of two values.
    pub(crate) fn only_if_one_of(&mut self, name: &str, values: [AttributeValue; 2]) -> &mut Self {
        let name = self.name(name);
        let [one, other] = values.map(|value| self.value(value));
        self.conditions.push(format!("{name} IN ({one}, {other})"));
        self
    }

    /// The update, if it changes anything.
    pub(crate) fn expression(&self) -> Option<String> {
        let clauses = [("SET", &self.set), ("REMOVE", &self.remove), ("ADD", &self.add)];
        let clauses: Vec<String> = clauses
            .iter()
            .filter(|(_, parts)| !parts.is_empty())
            .map(|(verb, parts)| format!("{verb} {}", parts.join(", ")))
            .collect();
        (!clauses.is_empty()).then(|| clauses.join(" "))
    }

    /// The condition, if there is one.
    pub(crate) fn condition(&self) -> Option<String> {
        (!self.conditions.is_empty()).then(|| self.conditions.join(" AND "))
    }

    /// Names and values behind the placeholders.
    pub(crate) fn into_placeholders(self) -> (HashMap<String, String>, Item) {
        (self.names, self.values)
    }
}

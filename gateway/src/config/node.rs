//! The document as a tree in which each part knows where it is, and how settings are read from it.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::fault::{Fault, Step};

/// A part of the document.
#[derive(Default)]
pub(super) struct Node {
    /// Where its name begins or, in a list, the value.
    offset: usize,
    value: Value,
}

#[derive(Default)]
enum Value {
    Boolean(bool),
    List(Vec<Node>),
    Number(i64),
    /// A value of a type that no setting has.
    Other(&'static str),
    /// Its problem is reported. It is skipped, so that the next problem is found.
    #[default]
    Removed,
    Table(Vec<(String, Node)>),
    Text(String),
}

impl Node {
    pub(super) fn of_document(table: &DeTable<'_>) -> Self {
        Self {
            offset: 0,
            value: Value::of_table(table),
        }
    }

    fn of_value(offset: usize, value: &DeValue<'_>) -> Self {
        let value = match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Other("a number that is too large"), Value::Number),
            DeValue::Float(_) => Value::Other("a fraction"),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(_) => Value::Other("a date or time"),
            DeValue::Array(values) => {
                let nodes = values.iter();
                Value::List(
                    nodes
                        .map(|value| Self::of_value(value.span().start, value.get_ref()))
                        .collect(),
                )
            }
            DeValue::Table(table) => Value::of_table(table),
        };
        Self { offset, value }
    }

    /// The part at this path: `route[2].upstream`. A list of one needs no number, because `tower_dpop` names its only issuer
    /// without one.
    fn at(&self, path: &str) -> Option<&Self> {
        let mut node = self;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            if let (Value::List(nodes), false) = (&node.value, step.ends_with(']')) {
                let [only] = nodes.as_slice() else {
                    return None;
                };
                node = only;
            }
            node = match (&node.value, step.strip_suffix(']')) {
                (Value::List(nodes), Some(number)) => nodes.get(number.parse::<usize>().ok()?)?,
                (Value::Table(members), None) => &members.iter().find(|(name, _)| name == step)?.1,
                _ => return None,
            };
        }
        Some(node)
    }

    pub(super) fn table(&self, path: &str) -> Option<&Self> {
        let node = self.at(path)?;
        matches!(node.value, Value::Table(_)).then_some(node)
    }

    /// Where a setting is or, if it is not there, the innermost table or list that should have it.
    pub(super) fn offset_of(&self, path: &str) -> Option<usize> {
        let mut path = path;
        while !path.is_empty() {
            if let Some(node) = self.at(path) {
                return Some(node.offset);
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
        None
    }

    /// Removes the part at this path. A table that is missing at the top gets an empty one.
    pub(super) fn remove(&mut self, path: &[Step]) -> bool {
        let Some((last, parents)) = path.split_last() else {
            return false;
        };
        let mut node = self;
        for step in parents {
            let inner = match (&mut node.value, step) {
                (Value::List(nodes), Step::Number(number)) => nodes.get_mut(*number),
                (Value::Table(members), Step::Name(name)) => {
                    let mut members = members.iter_mut();
                    members
                        .find(|(known, _)| known == name)
                        .map(|(_, node)| node)
                }
                _ => None,
            };
            match inner {
                Some(inner) => node = inner,
                None => return false,
            }
        }
        match (&mut node.value, last) {
            // The others keep their numbers.
            (Value::List(nodes), Step::Number(number)) => match nodes.get_mut(*number) {
                Some(node) => node.value = Value::Removed,
                None => return false,
            },
            (Value::Table(members), Step::Name(name)) => {
                let before = members.len();
                members.retain(|(known, _)| known != name);
                return members.len() < before;
            }
            _ => return false,
        }
        true
    }

    /// Adds an empty table at the top.
    pub(super) fn add_table(&mut self, name: &str) {
        if let Value::Table(members) = &mut self.value {
            let value = Value::Table(Vec::new());
            members.push((name.to_owned(), Self { offset: 0, value }));
        }
    }
}

impl Value {
    fn of_table(table: &DeTable<'_>) -> Self {
        let members = table.iter();
        let mut members: Vec<_> = members
            .map(|(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let node = Node::of_value(name.span().start, value.get_ref());
                (name.get_ref().to_string(), node)
            })
            .collect();
        // The parser has them in alphabetical order.
        members.sort_by_key(|(_, node)| node.offset);
        Self::Table(members)
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Number(_) => "a number",
            Self::Other(name) => name,
            Self::Removed => "nothing",
            Self::Table(_) => "a table",
            Self::Text(_) => "a string",
        }
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::List(nodes) => visitor.visit_seq(List(nodes.iter().enumerate())),
            Value::Number(value) => visitor.visit_i64(*value),
            Value::Other(found) => Err(Fault::custom(format_args!(
                "found {found}, which no setting accepts"
            ))),
            Value::Removed => visitor.visit_unit(),
            Value::Table(members) => visitor.visit_map(Table {
                members: members.iter(),
                next: None,
            }),
            Value::Text(text) => visitor.visit_borrowed_str(text),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::List(_) => self.deserialize_any(visitor),
            Value::Table(_) => Err(Fault::custom(
                "expected a list of tables: write its name in double brackets, as [[name]]",
            )),
            other => Err(Fault::custom(format_args!(
                "expected a list in brackets, found {}",
                other.name()
            ))),
        }
    }

    /// Never a list, from which the members would be read in their order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _members: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Table(_) => self.deserialize_any(visitor),
            Value::List(nodes)
                if nodes
                    .iter()
                    .all(|node| matches!(node.value, Value::Table(_))) =>
            {
                Err(Fault::custom(
                    "expected one table: write its name in single brackets, as [name]",
                ))
            }
            other => Err(Fault::custom(format_args!(
                "expected a table, found {}",
                other.name()
            ))),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::Text(name) = &self.value else {
            let (expected, found) = (variants.join(", "), self.value.name());
            let problem = format_args!("expected one of {expected}, found {found}");
            return Err(Fault::custom(problem));
        };
        let name: StrDeserializer<'_, Fault> = name.as_str().into_deserializer();
        visitor.visit_enum(name)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map identifier ignored_any
    }
}

struct List<'a>(std::iter::Enumerate<std::slice::Iter<'a, Node>>);

impl<'de> SeqAccess<'de> for List<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let is_there = |(_, node): &(usize, &Node)| !matches!(node.value, Value::Removed);
        let Some((number, node)) = self.0.find(is_there) else {
            return Ok(None);
        };
        let element = seed.deserialize(node);
        element
            .map(Some)
            .map_err(|fault| fault.within(Step::Number(number)))
    }
}

struct Table<'a> {
    members: std::slice::Iter<'a, (String, Node)>,
    next: Option<&'a (String, Node)>,
}

impl<'de> MapAccess<'de> for Table<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.next = self.members.next();
        let Some((name, _)) = self.next else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, Fault> = name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((name, node)) = self.next.take() else {
            return Err(Fault::custom("a value without a name"));
        };
        let value = match &node.value {
            // A template whose value is missing must not switch a check off.
            Value::Text(text) if text.is_empty() => Err(Fault::custom("must not be empty")),
            _ => seed.deserialize(node),
        };
        value.map_err(|fault| fault.within(Step::Name(name.clone())))
    }
}

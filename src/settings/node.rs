//! A document of any format as a tree, and how settings are read from it: an error knows the path to its setting.

use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

use crate::settings::fault::Fault;

/// A part of a document.
#[derive(Clone)]
pub(crate) enum Node {
    /// A value of a type that no setting has.
    Other(&'static str),
    Nothing,
    Boolean(bool),
    Number(u64),
    Text(String),
    /// The value of a variable. It is read as the type that is expected; a list is separated by white space.
    Word(String),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Boolean(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(u64::try_from(value).map_or(Node::Other("a negative number"), Node::Number))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other("a fraction"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Node, D::Error> {
        Node::deserialize(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut table: Vec<(String, Node)> = Vec::new();
        while let Some((name, node)) = map.next_entry::<String, Node>()? {
            // Two parsers that choose differently would see two different settings.
            if table.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format_args!("{name}: is set twice")));
            }
            table.push((name, node));
        }
        Ok(Node::Table(table))
    }
}

impl Node {
    fn other_than(self, expected: &str) -> Fault {
        let found = match self {
            Self::Other(found) => found,
            Self::Nothing => "nothing",
            Self::Boolean(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) | Self::Word(_) => "a string",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        };
        Fault::custom(format_args!("expected {expected}, found {found}"))
    }
}

impl<'de> Deserializer<'de> for Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Other(found) => Err(Fault::custom(format_args!(
                "no setting has this type: {found}"
            ))),
            Self::Nothing => visitor.visit_unit(),
            Self::Boolean(value) => visitor.visit_bool(value),
            Self::Number(value) => visitor.visit_u64(value),
            Self::Text(value) | Self::Word(value) => visitor.visit_string(value),
            Self::List(nodes) => visitor.visit_seq(List::new(nodes)),
            Self::Table(members) => visitor.visit_map(Table {
                members: members.into_iter(),
                next: None,
            }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Boolean(value) => visitor.visit_bool(value),
            Self::Word(word) => match word.parse() {
                Ok(value) => visitor.visit_bool(value),
                // Without the value: the name of the variable may be taken for that of a secret.
                Err(_) => Err(Fault::custom("must be true or false")),
            },
            other => Err(other.other_than("true or false")),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Number(value) => visitor.visit_u64(value),
            Self::Word(word) => match word.parse() {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => Err(Fault::custom(format_args!(
                    "{word:?}: must be a whole number"
                ))),
            },
            other => Err(other.other_than("a whole number")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Nothing => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    /// A single value is a list of one.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let nodes = match self {
            Self::List(nodes) => nodes,
            Self::Word(words) => {
                let words = words.split_whitespace();
                words.map(|word| Self::Word(word.to_owned())).collect()
            }
            one => vec![one],
        };
        visitor.visit_seq(List::new(nodes))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Self::Text(name) | Self::Word(name) => {
                let name: StringDeserializer<Fault> = name.into_deserializer();
                visitor.visit_enum(name)
            }
            other => Err(other.other_than(&format!("one of {}", variants.join(", ")))),
        }
    }

    /// Never a list, from which the members would be read in their order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _members: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            table @ Self::Table(_) => table.deserialize_any(visitor),
            other => Err(other.other_than("a table")),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct map identifier ignored_any
    }
}

struct List {
    nodes: std::vec::IntoIter<Node>,
    /// A list of one is named as its element.
    has_numbers: bool,
    next: usize,
}

impl List {
    fn new(nodes: Vec<Node>) -> Self {
        Self {
            has_numbers: nodes.len() > 1,
            nodes: nodes.into_iter(),
            next: 0,
        }
    }
}

impl<'de> SeqAccess<'de> for List {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.nodes.next() else {
            return Ok(None);
        };
        let number = self.next;
        self.next += 1;
        let element = seed.deserialize(node);
        match element {
            Err(fault) if self.has_numbers => Err(fault.within(&format!("[{number}]"))),
            element => element.map(Some),
        }
    }
}

struct Table {
    members: std::vec::IntoIter<(String, Node)>,
    next: Option<(String, Node)>,
}

impl<'de> MapAccess<'de> for Table {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.next = self.members.next();
        let Some((name, _)) = &self.next else {
            return Ok(None);
        };
        let name: StringDeserializer<Fault> = name.clone().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        match self.next.take() {
            // A template whose value is missing must not switch a check off.
            Some((name, Node::Nothing)) => {
                Err(Fault::at(name, "has no value: set it, or remove it"))
            }
            Some((name, Node::Text(text))) if text.is_empty() => {
                Err(Fault::at(name, "must not be empty"))
            }
            Some((name, node)) => seed.deserialize(node).map_err(|fault| fault.within(&name)),
            None => Err(Fault::custom("a value without a name")),
        }
    }
}

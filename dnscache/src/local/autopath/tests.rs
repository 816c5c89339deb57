//! Walks of resolvers with and without the rule.

//! Which rules of a policy have one value whatever is asked: `ReadStreamRequest` comes with every piece of output,
//! and such a rule is then neither evaluated nor given any JSON.
//!
//! A rule is constant when neither it nor any rule it names, however far, can read `input` or `data`, calls a
//! function or uses `with`. Whatever this does not understand is not constant.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{Expr, Literal, LiteralStmt, Module, Query, Rule, RuleHead};

/// What the rules of one name refer to.
#[derive(Debug, Default)]
struct Reads {
    /// They may depend on more than rules.
    more: bool,
    /// Names in them: rules, variables, imports.
    names: BTreeSet<String>,
}

/// The rules of a module by name, and which of them are constant.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Every name that has a rule.
    pub(crate) defined: BTreeSet<String>,
    /// Those that are constant.
    pub(crate) constant: BTreeSet<String>,
}

impl Rules {
    pub(crate) fn of(module: &Module) -> Self {
        let mut rules: BTreeMap<String, Reads> = BTreeMap::new();
        for rule in &module.policy {
            let (name, is_plain) = head(rule);
            let reads = rules.entry(name).or_default();
            reads.more |= !is_plain;
            reads.rule(rule);
        }
        // An imported document is read by any name.
        let imports = module.imports.iter().any(|import| {
            let path = import.refr.span().text();
            !(path == "rego.v1" || path == "future.keywords" || path.starts_with("future.keywords."))
        });
        let constant = if imports {
            BTreeSet::new()
        } else {
            rules.keys().filter(|name| is_constant(name, &rules)).cloned().collect()
        };
        Self { defined: rules.into_keys().collect(), constant }
    }
}

fn is_constant(name: &str, rules: &BTreeMap<String, Reads>) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![name];
    while let Some(name) = next.pop() {
        let Some(reads) = rules.get(name) else { continue };
        if reads.more {
            return false;
        }
        next.extend(reads.names.iter().map(String::as_str).filter(|name| seen.insert(*name)));
    }
    true
}

/// A rule's name, and whether it is a whole value and no function, set or part of an object.
fn head(rule: &Rule) -> (String, bool) {
    let (refr, is_value) = match rule {
        Rule::Default { refr, args, .. } => (refr, args.is_empty()),
        Rule::Spec { head: RuleHead::Compr { refr, .. }, .. } => (refr, true),
        Rule::Spec { head: RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. }, .. } => (refr, false),
    };
    let mut root = refr;
    while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = root.as_ref() {
        root = refr;
    }
    let is_plain = is_value && matches!(refr.as_ref(), Expr::Var { .. });
    (root.span().text().to_owned(), is_plain)
}

impl Reads {
    fn rule(&mut self, rule: &Rule) {
        match rule {
            Rule::Default { value, .. } => self.expr(value),
            Rule::Spec { head, bodies, .. } => {
                match head {
                    RuleHead::Compr { assign, .. } => {
                        if let Some(assign) = assign {
                            self.expr(&assign.value);
                        }
                    }
                    RuleHead::Set { .. } | RuleHead::Func { .. } => self.more = true,
                }
                for body in bodies {
                    if let Some(assign) = &body.assign {
                        self.expr(&assign.value);
                    }
                    self.query(&body.query);
                }
            }
        }
    }

    fn query(&mut self, query: &Query) {
        for LiteralStmt { literal, with_mods, .. } in &query.stmts {
            self.more |= !with_mods.is_empty();
            match literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection, .. } => {
                    key.iter().chain([value, collection]).for_each(|expr| self.expr(expr));
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expr(expr),
                Literal::Every { domain, query, .. } => {
                    self.expr(domain);
                    self.query(query);
                }
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => {}
            Expr::Var { span, .. } => match span.text() {
                "input" | "data" => self.more = true,
                name => {
                    self.names.insert(name.to_owned());
                }
            },
            Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| self.expr(item)),
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.expr(key);
                    self.expr(value);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.expr(term);
                self.query(query);
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.expr(key);
                self.expr(value);
                self.query(query);
            }
            Expr::Call { .. } => self.more = true,
            Expr::UnaryExpr { expr, .. } => self.expr(expr),
            Expr::RefDot { refr, .. } => self.expr(refr),
            Expr::RefBrack { refr, index, .. } => {
                self.expr(refr);
                self.expr(index);
            }
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => {
                self.expr(lhs);
                self.expr(rhs);
            }
            Expr::Membership { key, value, collection, .. } => {
                key.iter().chain([value, collection]).for_each(|expr| self.expr(expr));
            }
        }
    }
}

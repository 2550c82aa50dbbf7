//! The SQL expressions of contracts, as a tree.
//!
//! *In*: expression text. *Out*: [`Ex`]. *Never*: types, columns or values (see `eval`).

use super::num::Rat;
use super::val::Val;
use super::zone::{parse_date, parse_instant, parse_interval};

/// An expression.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Ex {
    Lit(Val),
    /// `a` or `alias.a`.
    Col(Vec<String>),
    Not(Box<Ex>),
    Neg(Box<Ex>),
    Bin(Op, Box<Ex>, Box<Ex>),
    /// Negated?
    IsNull(Box<Ex>, bool),
    In(Box<Ex>, Vec<Ex>, bool),
    Between(Box<Ex>, Box<Ex>, Box<Ex>, bool),
    Like(Box<Ex>, Box<Ex>, bool),
    Case(Option<Box<Ex>>, Vec<(Ex, Ex)>, Option<Box<Ex>>),
    Call(String, Vec<Ex>),
    /// `s['field']`
    Index(Box<Ex>, String),
}

impl Ex {
    /// The expressions right below this one.
    pub fn children(&self) -> Vec<&Ex> {
        match self {
            Ex::Lit(_) | Ex::Col(_) => Vec::new(),
            Ex::Not(a) | Ex::Neg(a) | Ex::IsNull(a, _) | Ex::Index(a, _) => vec![a],
            Ex::Bin(_, a, b) | Ex::Like(a, b, _) => vec![a, b],
            Ex::In(a, list, _) => std::iter::once(&**a).chain(list).collect(),
            Ex::Between(a, b, c, _) => vec![a, b, c],
            Ex::Case(operand, whens, otherwise) => {
                let ends = operand.iter().chain(otherwise).map(|e| &**e);
                ends.chain(whens.iter().flat_map(|(when, then)| [when, then])).collect()
            }
            Ex::Call(_, args) => args.iter().collect(),
        }
    }

    /// First names of the columns of a row that it reads (of a list function: the list only).
    pub fn columns(&self, found: &mut Vec<String>) {
        match self {
            Ex::Col(path) => found.push(path[0].clone()),
            Ex::Call(name, args) if name.ends_with("_of") => {
                args.first().into_iter().for_each(|list| list.columns(found));
            }
            _ => self.children().into_iter().for_each(|child| child.columns(found)),
        }
    }

    /// What stands before the dots of its columns.
    pub fn qualifiers(&self, found: &mut Vec<String>) {
        match self {
            Ex::Col(path) if path.len() > 1 => found.push(path[0].clone()),
            _ => self.children().into_iter().for_each(|child| child.qualifiers(found)),
        }
    }
}

/// A binary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Or,
    And,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Add,
    Sub,
    Cat,
    Mul,
    Div,
    Mod,
}

#[derive(Debug, Clone, PartialEq)]
enum Tok {
    Word(String),
    Quoted(String),
    Num(String),
    Str(String),
    Sym(String),
}

/// Parses a whole expression; the oracle reads valid contracts only, so a mistake panics.
pub fn parse(text: &str) -> Ex {
    let mut parser = Parser { toks: lex(text), at: 0, text };
    let ex = parser.or();
    if parser.at != parser.toks.len() {
        parser.fail("end of text");
    }
    ex
}

fn lex(text: &str) -> Vec<Tok> {
    let chars: Vec<char> = text.chars().collect();
    let mut toks = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if c.is_whitespace() {
            at += 1;
        } else if c.is_ascii_digit() {
            let start = at;
            while at < chars.len() && (chars[at].is_ascii_digit() || chars[at] == '.') {
                at += 1;
            }
            if at < chars.len() && matches!(chars[at], 'e' | 'E') {
                at += 1;
                while at < chars.len() && (chars[at].is_ascii_digit() || matches!(chars[at], '+' | '-')) {
                    at += 1;
                }
            }
            toks.push(Tok::Num(chars[start..at].iter().collect()));
        } else if c == '\'' || c == '"' {
            let (body, next) = quoted(&chars, at);
            at = next;
            toks.push(if c == '\'' { Tok::Str(body) } else { Tok::Quoted(body) });
        } else if c.is_alphabetic() || c == '_' {
            let start = at;
            while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                at += 1;
            }
            toks.push(Tok::Word(chars[start..at].iter().collect::<String>().to_lowercase()));
        } else {
            let two: String = chars[at..(at + 2).min(chars.len())].iter().collect();
            let len = if ["<=", ">=", "<>", "!=", "||"].contains(&two.as_str()) { 2 } else { 1 };
            toks.push(Tok::Sym(chars[at..at + len].iter().collect()));
            at += len;
        }
    }
    toks
}

/// The text between quotes, a doubled quote meaning one; and where it ends.
fn quoted(chars: &[char], start: usize) -> (String, usize) {
    let quote = chars[start];
    let mut body = String::new();
    let mut at = start + 1;
    loop {
        match chars.get(at) {
            Some(&c) if c == quote && chars.get(at + 1) == Some(&quote) => {
                body.push(quote);
                at += 2;
            }
            Some(&c) if c == quote => return (body, at + 1),
            Some(&c) => {
                body.push(c);
                at += 1;
            }
            None => panic!("a quote is not closed: {}", chars.iter().collect::<String>()),
        }
    }
}

struct Parser<'a> {
    toks: Vec<Tok>,
    at: usize,
    text: &'a str,
}

impl Parser<'_> {
    fn fail(&self, wanted: &str) -> ! {
        panic!("`{}`: wanted {wanted}, found {:?}", self.text, self.toks.get(self.at))
    }

    fn word(&mut self, word: &str) -> bool {
        let hit = matches!(self.toks.get(self.at), Some(Tok::Word(w)) if w == word);
        self.at += usize::from(hit);
        hit
    }

    fn sym(&mut self, sym: &str) -> bool {
        let hit = matches!(self.toks.get(self.at), Some(Tok::Sym(s)) if s == sym);
        self.at += usize::from(hit);
        hit
    }

    fn want_word(&mut self, word: &str) {
        if !self.word(word) {
            self.fail(word);
        }
    }

    fn want_sym(&mut self, sym: &str) {
        if !self.sym(sym) {
            self.fail(sym);
        }
    }

    fn text(&mut self) -> String {
        match self.toks.get(self.at) {
            Some(Tok::Str(s)) => {
                let s = s.clone();
                self.at += 1;
                s
            }
            _ => self.fail("a quoted text"),
        }
    }

    fn or(&mut self) -> Ex {
        let mut left = self.and();
        while self.word("or") {
            left = bin(Op::Or, left, self.and());
        }
        left
    }

    fn and(&mut self) -> Ex {
        let mut left = self.not();
        while self.word("and") {
            left = bin(Op::And, left, self.not());
        }
        left
    }

    fn not(&mut self) -> Ex {
        if self.word("not") { Ex::Not(Box::new(self.not())) } else { self.comparison() }
    }

    fn comparison(&mut self) -> Ex {
        let mut left = self.sum();
        loop {
            let ops = [
                ("=", Op::Eq),
                ("<>", Op::Ne),
                ("!=", Op::Ne),
                ("<=", Op::Le),
                (">=", Op::Ge),
                ("<", Op::Lt),
                (">", Op::Gt),
            ];
            if let Some((_, op)) = ops.into_iter().find(|(sym, _)| self.sym(sym)) {
                left = bin(op, left, self.sum());
            } else if self.word("is") {
                let negated = self.word("not");
                self.want_word("null");
                left = Ex::IsNull(Box::new(left), negated);
            } else if let Some(ex) = self.negatable(&left) {
                left = ex;
            } else {
                return left;
            }
        }
    }

    /// `[NOT] IN`, `[NOT] BETWEEN`, `[NOT] LIKE` after `left`.
    fn negatable(&mut self, left: &Ex) -> Option<Ex> {
        let start = self.at;
        let negated = self.word("not");
        let left = Box::new(left.clone());
        if self.word("in") {
            self.want_sym("(");
            let list = self.list();
            return Some(Ex::In(left, list, negated));
        }
        if self.word("between") {
            let low = self.sum();
            self.want_word("and");
            let high = self.sum();
            return Some(Ex::Between(left, Box::new(low), Box::new(high), negated));
        }
        if self.word("like") {
            return Some(Ex::Like(left, Box::new(self.sum()), negated));
        }
        self.at = start;
        None
    }

    /// Expressions up to a closing bracket.
    fn list(&mut self) -> Vec<Ex> {
        let mut items = Vec::new();
        if self.sym(")") {
            return items;
        }
        loop {
            items.push(self.or());
            if self.sym(")") {
                return items;
            }
            self.want_sym(",");
        }
    }

    fn sum(&mut self) -> Ex {
        let mut left = self.product();
        loop {
            let ops = [("+", Op::Add), ("-", Op::Sub), ("||", Op::Cat)];
            match ops.into_iter().find(|(sym, _)| self.sym(sym)) {
                Some((_, op)) => left = bin(op, left, self.product()),
                None => return left,
            }
        }
    }

    fn product(&mut self) -> Ex {
        let mut left = self.unary();
        loop {
            let ops = [("*", Op::Mul), ("/", Op::Div), ("%", Op::Mod)];
            match ops.into_iter().find(|(sym, _)| self.sym(sym)) {
                Some((_, op)) => left = bin(op, left, self.unary()),
                None => return left,
            }
        }
    }

    fn unary(&mut self) -> Ex {
        if self.sym("-") {
            return Ex::Neg(Box::new(self.unary()));
        }
        let mut ex = self.atom();
        while self.sym("[") {
            let key = self.text();
            self.want_sym("]");
            ex = Ex::Index(Box::new(ex), key);
        }
        ex
    }

    fn atom(&mut self) -> Ex {
        if self.sym("(") {
            let ex = self.or();
            self.want_sym(")");
            return ex;
        }
        let Some(tok) = self.toks.get(self.at).cloned() else { self.fail("an expression") };
        self.at += 1;
        match tok {
            Tok::Num(text) => Ex::Lit(number(&text)),
            Tok::Str(text) => Ex::Lit(Val::Text(text)),
            Tok::Quoted(name) => self.column(name),
            Tok::Word(word) => self.worded(word),
            Tok::Sym(_) => {
                self.at -= 1;
                self.fail("an expression")
            }
        }
    }

    fn worded(&mut self, word: String) -> Ex {
        let next_is_text = matches!(self.toks.get(self.at), Some(Tok::Str(_)));
        match word.as_str() {
            "true" => Ex::Lit(Val::Bool(true)),
            "false" => Ex::Lit(Val::Bool(false)),
            "null" => Ex::Lit(Val::Null),
            "case" => self.case(),
            "interval" if next_is_text => {
                let text = self.text();
                Ex::Lit(Val::Dur(parse_interval(&text).unwrap_or_else(|| self.fail("an interval"))))
            }
            "timestamp" if next_is_text => {
                let text = self.text();
                Ex::Lit(Val::Ts(parse_instant(&text).unwrap_or_else(|| self.fail("an instant"))))
            }
            "date" if next_is_text => {
                let text = self.text();
                Ex::Lit(Val::Date(parse_date(&text).unwrap_or_else(|| self.fail("a date"))))
            }
            _ if self.sym("(") => {
                // count(*) does not occur; a star is never an argument.
                let args = self.list();
                Ex::Call(word, args)
            }
            _ => self.column(word),
        }
    }

    fn column(&mut self, first: String) -> Ex {
        let mut path = vec![first];
        while self.sym(".") {
            match self.toks.get(self.at).cloned() {
                Some(Tok::Word(w) | Tok::Quoted(w)) => path.push(w),
                _ => self.fail("a name"),
            }
            self.at += 1;
        }
        Ex::Col(path)
    }

    fn case(&mut self) -> Ex {
        let operand = if self.word("when") {
            None
        } else {
            let operand = self.or();
            self.want_word("when");
            Some(Box::new(operand))
        };
        let mut whens = Vec::new();
        loop {
            let when = self.or();
            self.want_word("then");
            whens.push((when, self.or()));
            if !self.word("when") {
                break;
            }
        }
        let otherwise = self.word("else").then(|| Box::new(self.or()));
        self.want_word("end");
        Ex::Case(operand, whens, otherwise)
    }
}

fn bin(op: Op, left: Ex, right: Ex) -> Ex {
    Ex::Bin(op, Box::new(left), Box::new(right))
}

/// `3` is an integer, `3.10` a decimal, `3e1` a float.
fn number(text: &str) -> Val {
    if text.contains(['e', 'E']) {
        return Val::Float(text.parse().expect("a float literal"));
    }
    match text.split_once('.') {
        Some((_, fraction)) => {
            let scale = fraction.len() as u8;
            let value = Rat::parse(text).and_then(|r| r.round(scale)).expect("a decimal literal");
            Val::Dec(value, scale)
        }
        None => match text.parse::<i64>() {
            Ok(v) => Val::Int(v),
            Err(_) => Val::Dec(text.parse().expect("a literal of at most 38 digits"), 0),
        },
    }
}

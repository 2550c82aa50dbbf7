//! The text of an expression: its tokens with their bytes, its syntax tree.
//!
//! *In*: SQL text. *Out*: one parsed expression, byte ranges of its parts. *Never*: names or types;
//! a tree so deep that walking it overflows the stack.

use std::ops::Range;

use datafusion_sql::sqlparser::ast::{self, Spanned};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use super::ExprError;

/// Longest text of an expression, in bytes.
const MAX_BYTES: usize = 64 << 10;
/// Most operators in one expression: operators nest the tree, and every step walks it recursively;
/// unoptimised code overflows the 2 MiB stack of a thread at about twice as many.
const MAX_OPERATORS: usize = 100;

/// The text with its tokens.
pub(super) struct Source {
    /// As written.
    pub(super) sql: String,
    tokens: Vec<TokenWithSpan>,
    /// Byte offset of each line's start.
    lines: Vec<usize>,
}

impl Source {
    /// Splits the text into tokens.
    pub(super) fn read(sql: &str) -> Result<Self, ExprError> {
        let whole = 0..sql.len();
        if sql.trim().is_empty() {
            return Err(ExprError::new("syntax", whole, "an expression is expected, found nothing"));
        }
        if sql.len() > MAX_BYTES {
            let message = format!("an expression of {} bytes is too long", sql.len());
            return Err(ExprError::new("too_complex", whole, message)
                .allowed(format!("{MAX_BYTES} bytes"))
                .fix("split it into several enrich columns"));
        }
        let lines =
            std::iter::once(0).chain(sql.match_indices('\n').map(|(at, _)| at + 1)).collect::<Vec<_>>();
        let mut source = Self { sql: sql.to_owned(), tokens: Vec::new(), lines };
        let mut tokens =
            Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().map_err(|error| {
                let start = source.byte(error.location).min(sql.len());
                ExprError::new("syntax", start..sql.len(), sentence(&error.message))
            })?;
        let operators = tokens.iter().filter(|token| is_operator(&token.token)).count();
        if operators > MAX_OPERATORS {
            let message = format!("an expression with {operators} operators is too complex");
            return Err(ExprError::new("too_complex", whole, message)
                .allowed(format!("{MAX_OPERATORS} operators"))
                .fix("use IN for long lists, or split it into several enrich columns"));
        }
        free_names_around_dots(&mut tokens);
        source.tokens = tokens;
        Ok(source)
    }

    /// The one expression the text is.
    pub(super) fn parse(&self) -> Result<ast::Expr, ExprError> {
        let dialect = GenericDialect {};
        let mut parser = Parser::new(&dialect).with_tokens_with_locations(self.tokens.clone());
        let ast = parser.parse_expr().map_err(|error| self.syntax_error(error))?;
        let next = parser.peek_token();
        if next.token == Token::EOF {
            return Ok(ast);
        }
        let place = self.range(next.span);
        let found = self.sql[place.clone()].to_owned();
        let message = format!("the expression should end before `{found}`");
        Err(ExprError::new("syntax", place, message).found(found).allowed("an operator, or the end"))
    }

    fn syntax_error(&self, error: ParserError) -> ExprError {
        let message = match error {
            ParserError::RecursionLimitExceeded => {
                return ExprError::new("too_complex", 0..self.sql.len(), "the expression nests too deeply")
                    .fix("split it into several enrich columns");
            }
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        };
        // "Expected: an expression, found: ) at Line: 1, Column: 5"
        let (message, location) = match message.rsplit_once(" at Line: ") {
            Some((head, tail)) => (head.to_owned(), parse_location(tail)),
            None => (message, None),
        };
        let place = match location {
            Some(location) => self.token_at(self.byte(location)),
            None => self.sql.trim_end().len()..self.sql.len(),
        };
        let message = sentence(&message.replace("found: EOF", "found the end"));
        let found = self.sql.get(place.clone()).filter(|text| !text.is_empty()).map(str::to_owned);
        ExprError { found, ..ExprError::new("syntax", place, message) }
    }

    /// Byte offset of a place in lines and characters, both from 1.
    fn byte(&self, location: Location) -> usize {
        let Some(line) = usize::try_from(location.line).ok().and_then(|line| line.checked_sub(1)) else {
            return self.sql.len();
        };
        let Some(start) = self.lines.get(line) else { return self.sql.len() };
        let characters = usize::try_from(location.column).unwrap_or(usize::MAX).saturating_sub(1);
        let rest = &self.sql[*start..];
        start + rest.char_indices().nth(characters).map_or(rest.len(), |(at, _)| at)
    }

    fn token_at(&self, byte: usize) -> Range<usize> {
        let tokens = self.tokens.iter().map(|token| self.range(token.span));
        tokens.into_iter().find(|range| range.contains(&byte)).unwrap_or(byte..self.sql.len())
    }

    /// Bytes of a span; the whole text for an empty span.
    pub(super) fn range(&self, span: Span) -> Range<usize> {
        if span == Span::empty() {
            return 0..self.sql.len();
        }
        let start = self.byte(span.start);
        start..self.byte(span.end).max(start)
    }

    /// Bytes of a function call: its span as the parser knows it, up to the closing parenthesis.
    pub(super) fn call_range(&self, span: Span) -> Range<usize> {
        let range = self.range(span);
        let mut depth = 0;
        let calls = self.tokens.iter().filter(|token| self.byte(token.span.start) >= range.start);
        for token in calls {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen if depth <= 1 => {
                    return range.start..self.byte(token.span.end).max(range.end);
                }
                Token::RParen => depth -= 1,
                _ => {}
            }
        }
        range
    }

    /// The text of a range.
    pub(super) fn text(&self, range: Range<usize>) -> &str {
        self.sql.get(range).unwrap_or(&self.sql)
    }
}

/// `order.amount`: a word beside a dot is a name, even where SQL has a keyword of that spelling.
fn free_names_around_dots(tokens: &mut [TokenWithSpan]) {
    let solid: Vec<usize> =
        (0..tokens.len()).filter(|i| !matches!(tokens[*i].token, Token::Whitespace(_))).collect();
    for (position, index) in solid.iter().enumerate() {
        let is_dot = |neighbour: Option<&usize>| neighbour.is_some_and(|i| tokens[*i].token == Token::Period);
        let before = position.checked_sub(1).and_then(|i| solid.get(i));
        if !is_dot(before) && !is_dot(solid.get(position + 1)) {
            continue;
        }
        if let Token::Word(word) = &mut tokens[*index].token
            && word.quote_style.is_none()
        {
            word.quote_style = Some('"');
            word.keyword = Keyword::NoKeyword;
        }
    }
}

fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => {
            matches!(word.keyword, Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::IS)
        }
        Token::Whitespace(_)
        | Token::Comma
        | Token::Period
        | Token::LParen
        | Token::RParen
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::EOF => false,
        _ => true,
    }
}

/// `1, Column: 5`.
fn parse_location(text: &str) -> Option<Location> {
    let (line, column) = text.split_once(", Column: ")?;
    Some(Location::new(line.parse().ok()?, column.parse().ok()?))
}

fn sentence(message: &str) -> String {
    let message = message.trim().replace("Expected: ", "expected ").replace("found: ", "found ");
    let mut characters = message.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => message,
    }
}

impl Source {
    /// Bytes of a node: as the parser knows them, calls up to their closing parenthesis.
    pub(super) fn expr_range(&self, expr: &ast::Expr) -> Range<usize> {
        match expr {
            ast::Expr::Function(_) => self.call_range(expr.span()),
            _ => self.range(expr.span()),
        }
    }
}

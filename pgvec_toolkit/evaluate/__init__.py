"""How good searches are on queries with judgements: measures, intervals, BEIR and TREC files, fitted fusions."""

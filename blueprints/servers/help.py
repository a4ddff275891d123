"""An MCP server that searches the help pages, over standard input and output."""

from blueprints.skills import help_pages
from mcp.server.mcpserver import MCPServer

server = MCPServer("help")


@server.tool(description="Search the help pages for a question")
def search_help(question: str) -> str:
    """Return the text of the page that fits best."""
    return help_pages.find(question)["text"]


if __name__ == "__main__":
    server.run("stdio")

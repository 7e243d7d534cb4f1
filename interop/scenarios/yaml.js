// Prints the documents of a YAML file as a JSON list.
const fs = require('node:fs')
const { parseAllDocuments } = require('yaml')

const documents = parseAllDocuments(fs.readFileSync(process.argv[2], 'utf8'))
for (const d of documents) {
  for (const problem of [...d.errors, ...d.warnings]) throw problem
}
console.log(JSON.stringify(documents.map(d => d.toJS())))

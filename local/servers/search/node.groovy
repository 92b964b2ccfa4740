// Starts one node of Elasticsearch 7 or OpenSearch. Arguments: its home, its root package, its plugins' classes.
// The stock main class refuses to run as root and wants a distribution's folders.
import java.nio.file.Path

def home = Path.of(args[0])
def type = { name -> Class.forName("${args[1]}.${name}") }
def version = type("Version").CURRENT
def plugins = args.drop(2).collect(type)
if (args[1] == "org.opensearch" && version.major >= 3) {
    def info = type("plugins.PluginInfo")
    plugins = plugins.collect {
        info.newInstance(it.name, "on the class path", "NA", version, "21", it.name, null, [], false)
    }
}
def settings = type("common.settings.Settings").builder().put("path.home", home.toString()).build()
def environment = type("node.InternalSettingsPreparer")
    .prepareEnvironment(settings, [:], home.resolve("config"), { "local" })
type("common.logging.LogConfigurator").setNodeName("local")
type("common.logging.LogConfigurator").configure(environment)
// Protected, because plugins on the class path are meant for a server's own tests.
def constructor = type("node.Node").getDeclaredConstructor(type("env.Environment"), Collection, boolean)
constructor.accessible = true
def node = constructor.newInstance(environment, plugins, false)
node.start()
Runtime.runtime.addShutdownHook(new Thread({ node.close() }))
Thread.currentThread().join()
